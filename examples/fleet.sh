#!/bin/sh
# One command on every machine of the fleet; with no worker attached that is this machine.
# sh examples/fleet.sh
set -eu
asterism exec --on all -- uname -sm
