"""Certificates (P-256): what a server's own CA issues, what a peer's says, and how a peer without one gets in.

An identity is its key: a keyring knows the SHA-256 of the public key, and a certificate says that the CA vouches for
it until a date. So a renewal adds no fact, and to revoke is to forget the key. The subject alternative name is who it
is, `asterism://worker/NAME` or `asterism://client/NAME`; the server's has SERVER_NAME beside its addresses.

Strangers: gRPC for Python demands client certificates or asks for none, and who enrols has none yet. So a stranger
signs one itself with a key that everybody can derive. It proves nothing and opens nothing: the server trusts it for
the handshake only, and takes as an identity what its own CA has signed. It must not know gRPC, files or the journal;
cryptography is imported when it is first used.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .errors import UsageError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

SERVER_NAME: Final = "server.asterism.internal"
"""What every client asks for, whatever address it dials: trust is in the CA, and a tunnel changes addresses."""
SKEW_S: Final = 300.0
"""How far clocks may differ: a certificate is good from so long before it was made."""
CA_LIFE_S: Final = 20 * 365 * 86400.0
_STRANGER: Final = "asterism stranger"
_CSR_LIMIT: Final = 8192


class Peer(msgspec.Struct, frozen=True):
    """What a certificate of our CA says. `key`: SHA-256 hex of the public key; times are seconds since 1970."""

    identity: str
    key: str
    since: float
    until: float


def new_key() -> str:
    """A private key as PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _key_text(ec.generate_private_key(ec.SECP256R1()))


def request(key: str) -> str:
    """A signing request that proves who holds the key. Who they are is the token's to say, not theirs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return _text(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(_key(key), hashes.SHA256()))


def requested_key(csr: str) -> Any:
    """The public key of a signing request. Raises: UsageError for what is none of ours, or not signed by its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if len(csr) > _CSR_LIMIT:
            raise ValueError("too long")
        found = x509.load_pem_x509_csr(csr.encode())
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a P-256 key")
        if not found.is_signature_valid:
            raise ValueError("not signed by its own key")
    except _unreadable() as error:
        raise UsageError(
            f"the certificate request is not good: {error}", hint="enrol again with this version"
        ) from None
    return key


def key_hash(key: Any) -> str:
    """SHA-256 hex of a public key."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def own_key_hash(key: str) -> str:
    return key_hash(_key(key).public_key())


def make_ca(name: str, key: str, now: float) -> str:
    """A certificate that vouches for itself, as PEM."""
    return _issue(name, _key(key).public_key(), None, _key(key), now, CA_LIFE_S)


def make_server(names: Iterable[str], key: str, ca: str, ca_key: str, now: float, life_s: float) -> str:
    """The server's certificate, for these host names and addresses besides SERVER_NAME."""
    public = _key(key).public_key()
    return _issue(SERVER_NAME, public, _load(ca), _key(ca_key), now, life_s, names=(SERVER_NAME, *names))


def make_peer(identity: str, public: Any, ca: str, ca_key: str, now: float, life_s: float) -> str:
    """The certificate of a worker or a client with this identity (`asterism://worker/NAME`)."""
    return _issue(identity, public, _load(ca), _key(ca_key), now, life_s, identity=identity)


def stranger(now: float) -> tuple[str, str]:
    """A certificate and its key for who has none yet."""
    key, root = new_key(), _stranger_key()
    issuer = _load(strangers(now))
    return _issue(_STRANGER, _key(key).public_key(), issuer, root, now, 86400.0, identity="asterism://stranger"), key


def strangers(now: float) -> str:
    """The root that strangers' certificates have. Not an authority for anything but finishing a handshake."""
    root = _stranger_key()
    return _issue(_STRANGER, root.public_key(), None, root, now, CA_LIFE_S)


def read(pem: bytes, ca: str) -> Peer | None:
    """What a certificate says; None if this CA didn't issue it, whatever it is."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(pem)
        found.verify_directly_issued_by(_load(ca))
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        key = key_hash(found.public_key())
    except _unreadable():
        return None
    since, until = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Peer(uris[0] if uris else "", key, since + SKEW_S, until)


def times(certificate: str) -> tuple[float, float]:
    """From when it was made until when it is good, in seconds since 1970."""
    found = _load(certificate)
    return found.not_valid_before_utc.timestamp() + SKEW_S, found.not_valid_after_utc.timestamp()


def worn(certificate: str, now: float, share: float = 0.5) -> bool:
    """Whether this share of its life is over."""
    since, until = times(certificate)
    return now >= since + (until - since) * share


def digest(ca: str) -> str:
    """SHA-256 hex of the CA's certificate: what a join string carries."""
    from cryptography.hazmat.primitives import hashes

    return _load(ca).fingerprint(hashes.SHA256()).hex()


def authority_in(chain: Iterable[bytes], wanted: str) -> str | None:
    """The certificate (DER) of a chain that has this digest, as PEM."""
    from cryptography import x509

    for der in chain:
        if hmac.compare_digest(hashlib.sha256(der).hexdigest(), wanted.lower()):
            return _text(x509.load_der_x509_certificate(der))
    return None


def _unreadable() -> tuple[type[Exception], ...]:
    """What comes of certificates and requests that are damaged, forged or of another kind."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    foreign = (x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    return (InvalidSignature, UnsupportedAlgorithm, *foreign, ValueError, TypeError)


def _stranger_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.derive_private_key(int.from_bytes(hashlib.sha256(_STRANGER.encode()).digest()), ec.SECP256R1())


def _key(text: str) -> Any:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(text.encode(), None)


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none).decode()


def _load(pem: str) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem.encode())


def _text(made: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    text: str = made.public_bytes(serialization.Encoding.PEM).decode()
    return text


def _issue(
    common: str,
    public: Any,
    issuer: x509.Certificate | None,
    signer: Any,
    now: float,
    life_s: float,
    *,
    identity: str = "",
    names: tuple[str, ...] = (),
) -> str:
    """An authority without `issuer`; else a server's with `names`, a peer's with `identity`: usages apart."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - SKEW_S))
        .not_valid_after(_date(now + life_s))
        .add_extension(x509.BasicConstraints(issuer is None, 0 if issuer is None else None), critical=True)
        .add_extension(_usage(authority=issuer is None), critical=True)
    )
    if issuer is not None:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        called = [_general(name) for name in names] or [x509.UniformResourceIdentifier(identity)]
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(called), critical=False)
    return _text(builder.sign(signer, hashes.SHA256()))


def _usage(authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _date(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)
