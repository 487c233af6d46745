"""`connect`: buy a client credential of a server with a join string, for later commands with that server.

The join string is a secret: it comes from a file, ASTERISM_JOIN or standard input, never from the command line. What
it buys is kept 0600 below ASTERISM_HOME. It must not know roles.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from pathlib import Path

import click
import msgspec

from protocol.config import load
from protocol.errors import NotAllowed, NotFound, UsageError
from protocol.membership import buy, trusting
from protocol.report import SCHEMA
from protocol.security import ClientIdentity, Join, is_loopback, load_client, parse_join, save_client
from protocol.transport import dial

from .. import local
from . import show
from .option import go, output_option


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--file", type=click.Path(path_type=Path), help="Read the join string from this file.")
@click.option("--name", help="What the server calls you; USER@HOST otherwise.")
@output_option("json")
def connect(address: str, file: Path | None, name: str | None, output: str) -> None:
    """Enrol this person as a client of a server.

    The join string is read from --file, ASTERISM_JOIN or standard input. Afterwards every command works with
    `--server HOST:PORT`, or with ASTERISM_SERVER set.
    """
    if "/" in address:
        raise UsageError("a join string is a secret: it is not taken from the command line", hint="--file FILE")
    if ":" not in address:
        raise UsageError(f"{address} is no address", hint="write HOST:PORT")
    join = _join(_join_text(file), address)
    if not join.ca and not is_loopback(address):
        raise NotAllowed(
            f"{address} is another machine, and this join string has no CA to trust",
            hint="copy the whole join string that `asterism token create` printed there",
        )
    called = name or f"{getpass.getuser()}@{socket.gethostname().partition('.')[0]}"

    environ = dict(os.environ)
    if home := load().settings.home:
        environ["ASTERISM_HOME"] = home
    directory = local.home_of(environ)
    kept = load_client(directory, address)
    before = kept.tls if kept is not None and kept.name == called else None

    async def main() -> ClientIdentity:
        stranger = await trusting(join)
        async with dial(address, join.token, tls=stranger) as channel:
            answer, tls = await buy(channel, "connect", stranger, before=before, name=called)
        return ClientIdentity(address, answer["name"], answer["role"], answer.get("secret", ""), tls)

    identity = go(main)
    path = save_client(directory, identity)
    if output == "json":
        found = {"server": address, "name": identity.name, "role": identity.role, "kept": str(path)}
        show.json_value({"schema": SCHEMA, **found})
        return
    show.say(f"{identity.name} is {_article(identity.role)} of {address} now; the credential is in {path}")
    show.say(f"  asterism ps --server {address}    or: export ASTERISM_SERVER={address}")


def _join_text(file: Path | None) -> str:
    """Raises: NotFound, UsageError."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"there is no file {file}", hint="give the file that holds the join string") from None
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{file} can't be read", hint="give a text file that holds the join string") from None
    if given := os.environ.pop("ASTERISM_JOIN", ""):
        return given
    if show.may_ask():
        return str(click.prompt("join string", hide_input=True, err=True))
    return sys.stdin.readline()


def _join(text: str, address: str) -> Join:
    """A join string, or its part after the slash; the address is the command's, which may be a tunnel."""
    text = text.strip()
    if not text:
        raise UsageError("there is no join string", hint="asterism connect HOST:PORT < FILE, or ASTERISM_JOIN")
    return msgspec.structs.replace(parse_join(text if "/" in text else f"{address}/{text}"), address=address)


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
