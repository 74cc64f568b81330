"""FG1 once more, written from PROTOCOL.md alone: identities, handshake, records, live proofs, rekey.

For vectors only: nothing here runs in constant time, wipes a key or limits anything.
"""

import hashlib
import hmac as hmac_module

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from kyber_py.ml_kem import ML_KEM_768

RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


# 1. Conventions

def u8(value):
    return value.to_bytes(1, "big")


def u16(value):
    return value.to_bytes(2, "big")


def u32(value):
    return value.to_bytes(4, "big")


def u64(value):
    return value.to_bytes(8, "big")


def bytes8(data):
    return u8(len(data)) + data


def bytes16(data):
    return u16(len(data)) + data


def label16(text):
    return text.encode("ascii").ljust(16, b"\0")


def H(data):
    return hashlib.sha256(data).digest()


def HMAC(key, data):
    return hmac_module.new(key, data, hashlib.sha256).digest()


def hkdf_expand(secret, info):
    """RFC 5869, first block."""
    return HMAC(secret, info + b"\x01")


def noise_hkdf(ck, ikm, count):
    temp = HMAC(ck, ikm)
    outputs, last = [], b""
    for index in range(1, count + 1):
        last = HMAC(temp, last + u8(index))
        outputs.append(last)
    return outputs


class Reader:
    def __init__(self, data):
        self.rest = data

    def take(self, length):
        if length > len(self.rest):
            raise ValueError("truncated")
        head, self.rest = self.rest[:length], self.rest[length:]
        return head

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def bytes8(self):
        return self.take(self.number(1))

    def bytes16(self):
        return self.take(self.number(2))

    def finish(self):
        if self.rest:
            raise ValueError("trailing bytes")


# 2. Identity

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32m(prefix, data):
    """BIP 350."""

    def polymod(values):
        generator = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        check = 1
        for value in values:
            top = check >> 25
            check = (check & 0x1FFFFFF) << 5 ^ value
            for bit in range(5):
                if top >> bit & 1:
                    check ^= generator[bit]
        return check

    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    words = [int(bits[at:at + 5], 2) for at in range(0, len(bits), 5)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = polymod(expanded + words + [0] * 6) ^ 0x2BC830A3
    words += [check >> 5 * (5 - index) & 31 for index in range(6)]
    return prefix + "1" + "".join(CHARSET[word] for word in words)


class P256:
    algorithm = 1

    def __init__(self, scalar):
        self.private = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
        self.public = self.private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)

    def sign(self, message):
        # Deterministic (RFC 6979), so that the vectors come out the same each time.
        der = self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Ed25519:
    algorithm = 2

    def __init__(self, seed):
        self.private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes(*RAW)

    def sign(self, message):
        return self.private.sign(H(message))


def verify(algorithm, public, message, signature):
    if algorithm == 1:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    elif algorithm == 2:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, H(message))
    else:
        raise ValueError("algorithm")


CHANGE = label16("FG1 change v1")
ATTEST = label16("FG1 attest v1")


class Identity:
    """An identity with its private keys."""

    def __init__(self):
        self.keys, self.changes, self.signed = [], [], []

    def change(self, key, created_at):
        sequence = len(self.changes)
        previous = H(CHANGE + self.changes[-1]) if self.changes else bytes(32)
        change = (u8(1) + u8(key.algorithm) + u32(sequence) + u64(created_at) + previous
                  + bytes8(key.public))
        signed = bytes16(change) + key.sign(CHANGE + change)
        if self.keys:
            signed += self.keys[-1].sign(CHANGE + change)
        self.keys.append(key)
        self.changes.append(change)
        self.signed.append(signed)
        return self

    @property
    def identifier(self):
        return H(CHANGE + self.changes[0])

    @property
    def history(self):
        return u8(len(self.signed)) + b"".join(bytes16(signed) for signed in self.signed)

    def attest(self, public, not_before, not_after, sequence):
        attestation = (u8(1) + self.identifier + u32(len(self.changes) - 1) + u8(1) + public
                       + u64(not_before) + u64(not_after) + u64(sequence))
        return attestation + self.keys[-1].sign(ATTEST + attestation)


def payload(history, attestation, presentation):
    """A payload of form 1."""
    assert len(presentation) <= 4096
    return u8(1) + history + bytes16(attestation) + bytes16(presentation)


def verify_payload(payload, static, now):
    """Verifies a payload of form 1; returns the identifier, the current key and the presentation."""
    reader = Reader(payload)
    assert reader.number(1) == 1, "form"
    before, identifier = None, None
    count = reader.number(1)
    assert 1 <= count <= 16
    for index in range(count):
        signed = Reader(reader.bytes16())
        change = signed.bytes16()
        fields = Reader(change)
        assert fields.number(1) == 1, "version"
        algorithm = fields.number(1)
        assert fields.number(4) == index, "sequence"
        fields.number(8)
        assert fields.take(32) == (H(CHANGE + before[2]) if before else bytes(32)), "previous"
        public = fields.bytes8()
        fields.finish()
        verify(algorithm, public, CHANGE + change, signed.take(64))
        if before:
            verify(before[0], before[1], CHANGE + change, signed.take(64))
        signed.finish()
        identifier = identifier or H(CHANGE + change)
        before = algorithm, public, change
    attested = Reader(reader.bytes16())
    presentation = reader.bytes16()
    assert len(presentation) <= 4096
    reader.finish()
    attestation = attested.take(94)
    fields = Reader(attestation)
    assert fields.number(1) == 1, "version"
    assert fields.take(32) == identifier, "identifier"
    assert fields.number(4) == count - 1, "key sequence"
    assert fields.number(1) == 1, "purpose"
    assert fields.take(32) == static, "public key"
    not_before, not_after = fields.number(8), fields.number(8)
    assert 0 < not_after - not_before <= 86_400, "lifetime"
    assert not_before - 300 <= now <= not_after + 300, "time"
    verify(before[0], before[1], ATTEST + attestation, attested.take(64))
    attested.finish()
    return identifier, before[:2], presentation


# 4. Handshake

HYBRID_AES, HYBRID_CHACHA, AES, CHACHA = 0x0101, 0x0102, 0x0001, 0x0002


def nonce(suite, number):
    order = "big" if suite & 0xFF == 1 else "little"
    return bytes(4) + number.to_bytes(8, order)


def cipher(suite, key):
    return AESGCM(key) if suite & 0xFF == 1 else ChaCha20Poly1305(key)


def is_hybrid(suite):
    return suite >> 8 == 1


class Static:
    """An X25519 key pair."""

    def __init__(self, private):
        self.key = x25519.X25519PrivateKey.from_private_bytes(private)
        self.public = self.key.public_key().public_bytes(*RAW)

    def dh(self, public):
        return self.key.exchange(x25519.X25519PublicKey.from_public_bytes(public))


class SymmetricState:
    """Noise rev 34 §5.2."""

    def __init__(self, suite, ck, h):
        self.suite, self.ck, self.h, self.k, self.n = suite, ck, h, None, 0

    def mix_hash(self, data):
        self.h = H(self.h + data)

    def mix_key(self, ikm):
        self.ck, self.k = noise_hkdf(self.ck, ikm, 2)
        self.n = 0

    def encrypt_and_hash(self, plaintext):
        sealed = cipher(self.suite, self.k).encrypt(nonce(self.suite, self.n), plaintext, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed):
        plaintext = cipher(self.suite, self.k).decrypt(nonce(self.suite, self.n), sealed, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return plaintext

    def split(self):
        t1, t2 = noise_hkdf(self.ck, b"", 2)
        root = hkdf_expand(self.ck, label16("FG1 root v1") + self.h)
        return {"t1": t1, "t2": t2, "root": root, "binding": self.h}


def begin(suite, responder, message_1):
    start = H(label16("FG1 channel v1"))
    state = SymmetricState(suite, start, start)
    state.mix_hash(responder)
    state.mix_hash(message_1[:-16])
    return state


def mac1(responder, covered):
    return HMAC(H(label16("FG1 mac1 v1") + responder), covered)[:16]


def message_1(channel, suites, e, e1, cached, cookie, responder):
    hybrid = any(is_hybrid(suite) for suite in suites)
    out = u8(0x11) + u8(1) + u32(channel) + u8(len(suites)) + b"".join(u16(suite) for suite in suites)
    out += u8(1 if hybrid else 0) + e
    if hybrid:
        out += e1
    out += cached + bytes8(cookie)
    length = 1900 if hybrid else 700
    out += bytes16(bytes(max(0, length - len(out) - 2 - 16)))
    return out + mac1(responder, out)


def read_message_1(message, responder):
    covered = message[:-16]
    assert mac1(responder, covered) == message[-16:], "mac1"
    reader = Reader(covered)
    assert reader.take(2) == b"\x11\x01"
    fields = {"channel": reader.number(4)}
    fields["suites"] = [reader.number(2) for _ in range(reader.number(1))]
    hybrid = any(is_hybrid(suite) for suite in fields["suites"])
    assert reader.number(1) == (1 if hybrid else 0), "flags"
    fields["e"] = reader.take(32)
    fields["e1"] = reader.take(1184) if hybrid else None
    fields["cached"] = reader.take(16)
    fields["cookie"] = reader.bytes8()
    assert not any(reader.bytes16())
    reader.finish()
    return fields


def message_2(first, channel, suite, responder, static, payload, e, m):
    """Returns message 2 and the state behind it. `m` is the randomness of the encapsulation."""
    fields = read_message_1(first, responder)
    state = begin(suite, responder, first)
    out = u8(0x12) + u32(fields["channel"]) + u32(channel) + u16(suite)
    state.mix_hash(out)
    out += e.public
    state.mix_hash(e.public)
    state.mix_key(e.dh(fields["e"]))
    if is_hybrid(suite):
        shared, ciphertext = ML_KEM_768._encaps_internal(fields["e1"], m)
        out += state.encrypt_and_hash(ciphertext)
        state.mix_key(shared)
    out += state.encrypt_and_hash(static.public)
    state.mix_key(static.dh(fields["e"]))
    out += state.encrypt_and_hash(payload)
    return out, state


def read_message_2(message, first, responder, e, dk):
    reader = Reader(message)
    head = reader.take(11)
    suite = int.from_bytes(head[9:], "big")
    state = begin(suite, responder, first)
    state.mix_hash(head)
    peer_e = reader.take(32)
    state.mix_hash(peer_e)
    state.mix_key(e.dh(peer_e))
    if is_hybrid(suite):
        ciphertext = state.decrypt_and_hash(reader.take(1104))
        state.mix_key(ML_KEM_768.decaps(dk, ciphertext))
    peer_static = state.decrypt_and_hash(reader.take(48))
    state.mix_key(e.dh(peer_static))
    payload = state.decrypt_and_hash(reader.rest)
    return int.from_bytes(head[5:9], "big"), peer_e, peer_static, payload, state


def message_3(channel, state, static, peer_e, payload):
    out = u8(0x13) + u32(channel)
    state.mix_hash(out)
    out += state.encrypt_and_hash(static.public)
    state.mix_key(static.dh(peer_e))
    return out + state.encrypt_and_hash(payload)


def read_message_3(message, state, e):
    reader = Reader(message)
    state.mix_hash(reader.take(5))
    static = state.decrypt_and_hash(reader.take(48))
    state.mix_key(e.dh(static))
    return static, state.decrypt_and_hash(reader.rest)


def cookie_answer(secret, path, first, channel):
    fields_e = read_e(first)
    return u8(0x1C) + u32(channel) + first[-16:] + HMAC(secret, path + fields_e)


def read_e(first):
    reader = Reader(first)
    reader.take(6)
    reader.take(2 * reader.number(1) + 1)
    return reader.take(32)


# 5. Records

def epoch_key(secret, epoch):
    for _ in range(epoch):
        secret = hkdf_expand(secret, label16("FG1 next v1"))
    return hkdf_expand(secret, label16("FG1 key v1"))


def seal(suite, secret, generation, channel, number, plaintext, code=None):
    if code is None:
        code = 1 if number % 256 == 0 else 0
    header = u8(0x40 | generation % 4 << 2 | code)
    aad = header + u32(channel) + u64(number)
    key = epoch_key(secret, number >> 20)
    sealed = cipher(suite, key).encrypt(nonce(suite, number), plaintext, aad)
    return header + u32(channel) + u64(number)[-(2 << code):] + sealed


def frame(kind, body):
    return u8(kind) + bytes16(body)


# 5.2 Live proof

def live_message(role, binding):
    """`role` is that of the prover: 0 initiator, 1 responder; `binding` that of generation 0."""
    return label16("FG1 live v1") + u8(role) + binding


def live_proof(identity, role, binding):
    """The body of Proof."""
    return u32(len(identity.changes) - 1) + identity.keys[-1].sign(live_message(role, binding))


def verify_proof(body, key_sequence, key, role, binding):
    reader = Reader(body)
    assert reader.number(4) == key_sequence, "key sequence"
    verify(key[0], key[1], live_message(role, binding), reader.take(64))
    reader.finish()


# 6. Rekey

def rekey(suite, root, binding, body_1, body_2, secrets):
    """`secrets` are the four DH results in order, and the KEM's if the suite is hybrid."""
    state = SymmetricState(suite, root, H(label16("FG1 rekey v1") + binding))
    state.mix_hash(body_1)
    state.mix_hash(body_2)
    for secret in secrets:
        state.mix_key(secret)
    return state.split()


