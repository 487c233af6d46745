"""Who may do what: secrets, principals, the table of roles, and the private files they live in.

Loopback plain mode: 256-bit secrets travel as call metadata `authorization: Bearer SECRET`; at rest there is only
their SHA-256. With TLS a peer is the key of its certificate, and of secrets only join tokens count. Deny is the
default: a method without a row in ROLES is allowed to nobody. It must not know transports, the journal or the fleet;
secrets never appear in a message, a log or a command line.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from .errors import ConfigInvalid, Conflict, NotAllowed, NotFound, UsageError, WireError
from .json_bytes import read_json

T = TypeVar("T")
Role = Literal["viewer", "submitter", "approver", "admin", "worker", "join", "guest"]

_LOOK: Final = frozenset({"viewer", "submitter", "approver", "admin"})
_SUBMIT: Final = frozenset({"submitter", "approver", "admin"})
_APPROVE: Final = frozenset({"approver", "admin"})
_ADMIN: Final = frozenset({"admin"})
_WORKER: Final = frozenset({"worker"})
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")

ROLES: Final[Mapping[str, frozenset[str]]] = {
    # the RPCs that are not invocations
    "Link": _WORKER,
    "Submit": _SUBMIT,
    "Put": _SUBMIT | _WORKER,
    "Has": _SUBMIT | _WORKER,
    "Get": _LOOK | _WORKER,
    "PutMany": _SUBMIT | _WORKER,
    "HasMany": _SUBMIT | _WORKER,
    "GetMany": _LOOK | _WORKER,
    # steering
    "patch": _SUBMIT,
    "cancel": _SUBMIT,
    "pause": _SUBMIT,
    "resume": _SUBMIT,
    "detach": _SUBMIT,
    "approve": _APPROVE,
    "reject": _APPROVE,
    "answer": _SUBMIT,
    "resolve": _SUBMIT,
    "fork": _SUBMIT,
    "retry": _SUBMIT,
    "undo": _SUBMIT,
    "rm": _SUBMIT,
    "plan": _SUBMIT,
    # looking
    "ps": _LOOK,
    "status": _LOOK,
    "tasks": _LOOK,
    "workers": _LOOK,
    "skills": _LOOK,
    "predictor": _LOOK,
    "explain": _LOOK,
    "graph": _LOOK,
    "result": _LOOK,
    "get": _LOOK,
    "stage": _LOOK | _WORKER,
    "logs": _LOOK,
    "events": _LOOK,
    "info": _LOOK | _WORKER,
    # the fleet and the server
    "enroll": _ADMIN | {"submitter", "approver", "join"},
    "connect": _ADMIN | {"join"},
    "token": _ADMIN,
    "tokens": _ADMIN,
    "revoke": _ADMIN,
    "gc": _ADMIN,
    "drain": _ADMIN,
    "dismiss": _SUBMIT,
    "shutdown": _ADMIN,
    "renew": _LOOK | _WORKER,
    "echo": _LOOK | _WORKER,
    "preflight": _LOOK | _WORKER | {"join", "guest"},
}
"""Method -> the roles that may call it. RPCs have capital names, what `Invoke` and `Watch` carry small ones."""


class Principal(msgspec.Struct, frozen=True):
    """Who a credential belongs to. `worker_id` only for workers, `token` (its number) only for join tokens."""

    name: str
    role: Role
    worker_id: int = 0
    token: int = 0


GUEST: Final = Principal("nobody", "guest")
"""Who has no credential, or one that is not known."""

PEER_TLS: Final = ":tls"
PEER_KEY: Final = ":key"
PEER_IDENTITY: Final = ":identity"
"""What a TLS transport saw of a peer, beside the metadata that the peer sent, whose names never begin with a colon."""


def allowed(role: str, method: str) -> bool:
    """Deny by default: an unknown method or role is refused."""
    return role in ROLES.get(method, frozenset())


def check_role(who: Principal, method: str) -> None:
    """Raises: NotAllowed."""
    if allowed(who.role, method):
        return
    if who == GUEST:
        raise NotAllowed("no credential, or one that this server doesn't know", hint="enrol again", ref="Unknown")
    raise NotAllowed(f"{method} isn't allowed to {who.name} ({who.role})", hint="ask an admin for another role")


def new_secret() -> str:
    """256 random bits, safe in URLs and shells."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is kept at rest: SHA-256 hex. A 256-bit secret needs no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def same_secret(secret: str, kept_hash: str) -> bool:
    """Whether `kept_hash` is of `secret`, in constant time."""
    return hmac.compare_digest(secret_hash(secret), kept_hash)


def bearer(secret: str) -> str:
    """The value of the `authorization` metadata. Raises: UsageError for what can't be a secret of ours."""
    if not (secret.isascii() and secret.isprintable()):
        raise UsageError("a credential has characters that none of ours has", hint="copy the whole join string again")
    return f"Bearer {secret}"


class Keyring:
    """The credentials a server accepts: secrets by their hash, keys of certificates by theirs.

    The look-up is by the hash of what was sent, so its time says nothing about the secrets that are kept.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Principal] = {}
        self._barred: set[str] = set()
        self.on_ended: Callable[[Principal], object] = lambda who: None
        """Told whose credential ended, so that what it still has open can be closed."""

    def add(self, kept: str, principal: Principal) -> None:
        """`kept`: what `secret_hash` or `key_credential` made."""
        self._kept[kept] = principal
        self._barred.discard(kept)

    def replace(self, kept: str, principal: Principal) -> None:
        """As `add`, and whatever else it had ends."""
        for other in [one for one, who in self._kept.items() if who == principal and one != kept]:
            self.remove(other)
        self.add(kept, principal)

    def remove(self, kept: str) -> None:
        if (who := self._kept.pop(kept, None)) is not None:
            self.on_ended(who)

    def bar(self, kept: str) -> None:
        """Remove it, and say so to who comes with it."""
        self._barred.add(kept)
        self.remove(kept)

    def owner(self, kept: str) -> Principal | None:
        return self._kept.get(kept)

    def held(self, name: str, kept: str) -> bool:
        """Whether a person of that name is known by another credential."""
        return any(
            who.name == name and who.role not in ("worker", "join") and other != kept
            for other, who in self._kept.items()
        )

    def authenticate(self, metadata: Mapping[str, str]) -> Principal | None:
        """The owner of the certificate's key, or of the bearer secret in call metadata (lower-case keys), or None.

        Raises: NotAllowed for what was revoked, or a certificate that says another name.
        """
        tls = metadata.get(PEER_TLS, "")
        if tls == "known":
            kept = key_credential(metadata[PEER_KEY])
            who = self._kept.get(kept)
            self._check(kept)
            if who is not None and metadata[PEER_IDENTITY] != identity_of(who):
                raise NotAllowed(f"the certificate is not {who.name}'s", hint="enrol again", ref="WrongName")
            return who
        scheme, _, secret = metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            return None
        kept = secret_hash(secret.strip())
        self._check(kept)
        who = self._kept.get(kept)
        return who if who is None or not tls or who.role == "join" else None

    def _check(self, kept: str) -> None:
        if kept in self._barred:
            raise NotAllowed("this credential was revoked", hint="enrol again with a new join string", ref="Revoked")


def key_credential(key: str) -> str:
    """What a keyring and the journal keep of a certificate's key."""
    return f"key:{key}"


def identity_of(who: Principal) -> str:
    """What the certificate of a worker or a client says."""
    return f"asterism://{'worker' if who.role == 'worker' else 'client'}/{who.name}"


# Addresses and join strings


def is_loopback(address: str) -> bool:
    """Whether `HOST:PORT` or `unix:PATH` is only reachable from this machine; of other names it can't be said."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Join(msgspec.Struct, frozen=True):
    """The one join string, `HOST:PORT/TOKEN.CA`: `ca` is the SHA-256 of the server's CA, empty in plain mode."""

    address: str
    token: str
    ca: str = ""

    def __str__(self) -> str:
        return f"{self.address}/{self.token}" + (f".{self.ca}" if self.ca else "")


def parse_join(text: str) -> Join:
    """Raises: UsageError, without repeating the secret."""
    address, _, secret = text.strip().rpartition("/")
    token, _, ca = secret.partition(".")
    if not address or not token or ":" not in address or (ca and _DIGEST.fullmatch(ca) is None):
        raise UsageError(
            "this is not a join string", hint="copy the whole line that `asterism server start` or `info` printed"
        )
    return Join(address, token, ca)


# Files


def home() -> Path:
    """`ASTERISM_HOME`, else the XDG state directory."""
    chosen = os.environ.get("ASTERISM_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "asterism"


def private_directory(path: Path) -> Path:
    """Make it, and the parents that are missing, readable by nobody else. What is there already is left as it is."""
    if not path.is_dir():
        private_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace the file in one step, mode 0600: a reader sees the old content or the new, and nobody else sees any."""
    private_directory(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_private(path: Path) -> bytes:
    """Raises: NotFound; NotAllowed when others can read or write the file, or it is not ours."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path} doesn't exist") from None
    except OSError as error:
        raise NotAllowed(f"{path} can't be opened: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise NotAllowed(f"{path} holds a secret and others may read it", hint=f"chmod 600 {path}")
        if found.st_uid not in (os.getuid(), 0):
            raise NotAllowed(f"{path} belongs to another user", hint="set ASTERISM_HOME to a directory of your own")
        return file.read()


class Tls(msgspec.Struct, frozen=True, omit_defaults=True):
    """One end of a TLS link, as PEM: the only CA it trusts, and its own certificate and key. Without: a stranger."""

    ca: str
    certificate: str = ""
    key: str = ""


class ServerFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """`server.json`: how clients of this machine find and enter the running server. `join`: its join string."""

    address: str
    pid: int
    token: str
    journal: str
    started: float
    version: str
    join: str = ""
    tls: Tls | None = None


class ClientIdentity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client bought with its token: a secret, or a certificate. Kept at `servers/ADDRESS.json`."""

    address: str
    name: str
    role: str
    secret: str = ""
    tls: Tls | None = None


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker bought with its token: a secret, or a certificate. Kept at `workers/NAME/identity.json`."""

    worker: int
    name: str
    secret: str = ""
    address: str = ""
    tls: Tls | None = None


def save_server(directory: Path, server: ServerFile) -> None:
    write_private(directory / "server.json", msgspec.json.encode(server))


def load_server(directory: Path) -> ServerFile | None:
    """The server that says it runs here; None without one. It may be dead all the same: try to reach it.

    Raises: NotAllowed, ConfigInvalid.
    """
    return _load(directory / "server.json", ServerFile)


def forget_server(directory: Path, pid: int) -> None:
    """Remove `server.json` if it is still the one of `pid`."""
    found = load_server(directory)
    if found is not None and found.pid == pid:
        (directory / "server.json").unlink(missing_ok=True)


def save_identity(directory: Path, identity: Identity) -> None:
    write_private(directory / "identity.json", msgspec.json.encode(identity))


def load_identity(directory: Path) -> Identity | None:
    return _load(directory / "identity.json", Identity)


def save_client(directory: Path, identity: ClientIdentity) -> Path:
    """Keep it for later commands with that server; where it is kept."""
    path = _client_path(directory, identity.address)
    write_private(path, msgspec.json.encode(identity))
    return path


def load_client(directory: Path, address: str) -> ClientIdentity | None:
    """Raises: NotAllowed, ConfigInvalid."""
    return _load(_client_path(directory, address), ClientIdentity)


def load_client_file(path: Path) -> ClientIdentity | None:
    return _load(path, ClientIdentity)


def _client_path(directory: Path, address: str) -> Path:
    return directory / "servers" / f"{re.sub(r'[^A-Za-z0-9.-]', '_', address)}.json"


def _load(path: Path, kind: type[T]) -> T | None:
    try:
        found: T = read_json(read_private(path), kind)
        return found
    except NotFound:
        return None
    except WireError as error:
        raise ConfigInvalid(f"{path} can't be read: {error}", hint="remove the file; it is made again") from None


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold the lock file while inside: one daemon per identity. The process's end frees it at the latest.

    Raises: Conflict when another process has it.
    """
    private_directory(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{path.parent} is in use by another process", hint="choose another --name") from None
        yield
    finally:
        os.close(handle)
