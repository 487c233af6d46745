"""Files of other machines that a running task needs: each is moved once and pinned by digest for its run."""

from __future__ import annotations

from protocol.errors import AsterismError, NotFound, Unavailable
from protocol.frame import Stage, Staged

from . import event as e
from .fleet import Session
from .graph import Run
from .turn import Turn


def owner_left(turn: Turn, session: Session) -> None:
    """Its files can't be read any more: whoever waits for one is told so."""
    for number, uri in [key for key in turn.staging if key[1].startswith(f"file://{session.name}/")]:
        for reply in turn.staging.pop((number, uri)):
            if turn.stages.pop(reply, None) is not None:
                turn.refuse(reply, Unavailable(f"{session.name} left before {uri} was read", hint="it is asked again"))


def staged(turn: Turn, session: Session, item: Staged) -> None:
    """The owner of a file has put it into the artifact store, or could not."""
    run = turn.state.runs.get(item.run)
    if run is None or (item.run, item.uri) not in turn.staging or _owner(turn, run, item.uri) is not session:
        turn.count("staged_unasked")
        return
    waiting = turn.staging.pop((item.run, item.uri))
    if item.ref is not None:
        turn.emit(e.FilePinned(item.run, item.uri, item.ref))
    for reply in waiting:
        if item.ref is not None:
            _arrived(turn, reply)
        elif turn.stages.pop(reply, None) is not None:
            turn.refuse(reply, NotFound(f"{item.uri}: {item.message}", hint="is the file still there, below a root?"))


def stage(turn: Turn, reply: int, worker: int, number: int, uris: tuple[str, ...]) -> None:
    """Files of other machines are needed: by a worker with work of this run, or (worker 0) by a client.

    Each is moved once and pinned by digest.
    """
    run = turn.state.runs.get(number)
    if run is None or (worker and not any(key[0] == number for key in turn.state.live.get(worker, ()))):
        turn.count("stage_refused")
        turn.refuse(reply, NotFound(f"no work of r{number} is at this worker"))
        return
    missing = [uri for uri in dict.fromkeys(uris) if uri not in run.files]
    owners = {uri: _owner(turn, run, uri) for uri in missing}
    for uri, owner in owners.items():
        if owner is None:
            turn.refuse(reply, _unread(turn, _named(run, uri), uri))
            return
    said = _said(run) if missing else b""
    for uri, owner in owners.items():
        waiting = turn.staging.setdefault((number, uri), [])
        waiting.append(reply)
        if len(waiting) == 1 and owner is not None:
            turn.send(owner, Stage(number, uri, uri.encode() in said))
    turn.stages[reply] = (number, uris, len(missing) + 1)
    _arrived(turn, reply)


def _owner(turn: Turn, run: Run, uri: str) -> Session | None:
    name = _named(run, uri)
    return next((one for one in turn.fleet.sessions.values() if one.name == name), None)


def _named(run: Run, uri: str) -> str:
    name = uri.removeprefix("file://").partition("/")[0]
    return run.home if name == "here" else name


def _unread(turn: Turn, name: str, uri: str) -> AsterismError:
    """Why a file can't be read whose owner is not connected; nobody waits for one that won't come back."""
    if any(one.name == name and not one.gone for one in turn.state.workers.values()):
        return Unavailable(f"{name} is away, its file {uri} can't be read", hint=f"start {name} again")
    return NotFound(f"{name} is no worker here any more, its file {uri} can't be read", hint=f"enrol {name} anew")


def _said(run: Run) -> bytes:
    """What persons wrote for this run that may name files: no word of a planner, a task or a worker is in it."""
    persons = {version.number for version in run.versions if version.author.startswith("person")}
    specs = (task.spec.args for task in run.roots() if task.version in persons and b"file://" in task.spec.args)
    return b"\n".join((run.request.encode(), *run.inputs.values(), *specs))


def _arrived(turn: Turn, reply: int) -> None:
    """One more of the files that `reply` waits for is here; with the last one it is answered."""
    number, uris, left = turn.stages.get(reply, (0, (), 0))
    run = turn.state.runs.get(number)
    if run is None:
        return
    turn.stages[reply] = (number, uris, left - 1)
    if left == 1:
        del turn.stages[reply]
        turn.reply(reply, {uri: [(ref := run.files[uri]).digest, ref.media, ref.size] for uri in uris})
