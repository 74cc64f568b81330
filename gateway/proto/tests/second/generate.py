"""Writes vectors.json: everything fixed, so that each run writes the same file.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python generate.py
"""

import hashlib
import json
import pathlib

import fg1
from fg1 import H, ML_KEM_768, Ed25519, Identity, P256, Static, bech32m, u64

NOW = 1_800_000_000


def fixed(name):
    """32 bytes that nobody else would take for their key."""
    return hashlib.sha256(b"FG1 test vector: " + name.encode()).digest()


def identity(name, keys):
    made = Identity()
    for index, key in enumerate(keys):
        made.change(key(fixed(f"{name} key {index}")), NOW - 1000 + index)
    static = Static(fixed(f"{name} static"))
    attestation = made.attest(static.public, NOW - 60, NOW + 86_340, 7)
    payload = fg1.payload(made.history, attestation, b"")
    identifier, key, presentation = fg1.verify_payload(payload, static.public, NOW)
    assert (identifier, key[1], presentation) == (made.identifier, made.keys[-1].public, b"")
    return {
        "identifier": made.identifier,
        "text": bech32m("fg", made.identifier),
        "history": made.history,
        "attestation": attestation,
        "static_private": fixed(f"{name} static"),
        "payload": payload,
        "static": static,
        "identity": made,
    }


def presentation(name, length):
    """Channels do not look into presentations, so any bytes will do."""
    blocks = (fixed(f"{name} presentation {index}") for index in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def handshake(name, suite, suites, initiator, responder, cookie, use_cached, presented):
    i_channel, r_channel = 0x01020304, 0xA0B0C0D0
    e_i, e_r = Static(fixed(f"{name} ei")), Static(fixed(f"{name} er"))
    ek, dk = ML_KEM_768._keygen_internal(fixed(f"{name} d"), fixed(f"{name} z"))
    m = fixed(f"{name} m")
    cached = H(responder["attestation"])[:16] if use_cached else bytes(16)
    secret, path = fixed(f"{name} cookie secret"), b"\x01\x03\x0812345678"
    answer = b""
    first = fg1.message_1(i_channel, suites, e_i.public, ek, cached, b"", responder["identifier"])
    if cookie:
        answer = fg1.cookie_answer(secret, path, first, i_channel)
        first = fg1.message_1(
            i_channel, suites, e_i.public, ek, cached, answer[-32:], responder["identifier"])
    payload_2 = b"\x02" if use_cached else responder["payload"]
    second, state_r = fg1.message_2(
        first, r_channel, suite, responder["identifier"], responder["static"], payload_2, e_r, m)
    assert len(second) <= len(first) or cookie

    peer_channel, peer_e, peer_static, payload, state_i = fg1.read_message_2(
        second, first, responder["identifier"], e_i, dk)
    assert (peer_channel, peer_static, payload) == (r_channel, responder["static"].public, payload_2)
    initiators = presentation(f"{name} initiator", presented)
    payload_3 = fg1.payload(initiator["history"], initiator["attestation"], initiators)
    third = fg1.message_3(peer_channel, state_i, initiator["static"], peer_e, payload_3)
    assert len(third) <= 8192
    static, payload = fg1.read_message_3(third, state_r, e_r)
    identifier, _, got = fg1.verify_payload(payload, static, NOW)
    assert (identifier, got) == (initiator["identifier"], initiators)
    keys = state_i.split()
    assert keys == state_r.split()

    return {
        "name": name,
        "suite": suite,
        "suites": suites,
        "initiator_channel": i_channel,
        "responder_channel": r_channel,
        "ei_private": fixed(f"{name} ei"),
        "er_private": fixed(f"{name} er"),
        "e1_expanded": dk if fg1.is_hybrid(suites[0]) else b"",
        "kem_ciphertext": ML_KEM_768._encaps_internal(ek, m)[1] if fg1.is_hybrid(suite) else b"",
        "kem_shared": ML_KEM_768._encaps_internal(ek, m)[0] if fg1.is_hybrid(suite) else b"",
        "cached": cached,
        "cookie_secret": secret,
        "cookie_path": path,
        "cookie_answer": answer,
        "message_1": first,
        "message_2": second,
        "presentation": initiators,
        "message_3": third,
        **keys,
        "records": records(suite, 0, keys, i_channel, r_channel),
        "credential": credential(name, suite, keys, i_channel, presented),
        "proofs": proofs(suite, keys, initiator, responder, i_channel, r_channel),
        "rekey": rekey(name, suite, keys, initiator, responder, i_channel, r_channel),
    }


def credential(name, suite, keys, i_channel, presented):
    """The responder's credential, in a record of its own."""
    presents = presentation(f"{name} responder", presented)
    plaintext = fg1.frame(0x07, presents)
    return {
        "presentation": presents,
        "record": fg1.seal(suite, keys["t2"], 0, i_channel, 3, plaintext),
    }


def proofs(suite, keys, initiator, responder, i_channel, r_channel):
    """A live proof of each side, in a record of its own."""
    out = []
    sides = ((initiator, keys["t1"], r_channel), (responder, keys["t2"], i_channel))
    for role, (prover, secret, channel) in enumerate(sides):
        body = fg1.live_proof(prover["identity"], role, keys["binding"])
        _, key, _ = fg1.verify_payload(prover["payload"], prover["static"].public, NOW)
        fg1.verify_proof(body, len(prover["identity"].changes) - 1, key, role, keys["binding"])
        out.append({
            "role": role,
            "message": fg1.live_message(role, keys["binding"]),
            "body": body,
            "record": fg1.seal(suite, secret, 0, channel, 4, fg1.frame(0x09, body)),
        })
    return out


def records(suite, generation, keys, i_channel, r_channel):
    numbers = [0, 1, 2, 255, 256, 2047, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20, (5 << 20) + 7]
    out = []
    for direction, secret, channel in (("i", keys["t1"], r_channel), ("r", keys["t2"], i_channel)):
        for number in numbers:
            plaintext = fg1.frame(0x20, u64(number) * (number % 5)) + bytes(number % 3)
            out.append({
                "direction": direction,
                "number": number,
                "plaintext": plaintext,
                "record": fg1.seal(suite, secret, generation, channel, number, plaintext),
            })
    return out


def rekey(name, suite, keys, initiator, responder, i_channel, r_channel):
    e_i, e_r = Static(fixed(f"{name} rekey ei")), Static(fixed(f"{name} rekey er"))
    s_i, s_r = initiator["static"], responder["static"]
    ek, dk = ML_KEM_768._keygen_internal(fixed(f"{name} rekey d"), fixed(f"{name} rekey z"))
    shared, ciphertext = ML_KEM_768._encaps_internal(ek, fixed(f"{name} rekey m"))
    hybrid = fg1.is_hybrid(suite)
    body_1 = b"\x01" + e_i.public + (ek if hybrid else b"")
    body_2 = b"\x01" + e_r.public + (ciphertext if hybrid else b"")
    secrets = [e_i.dh(s_r.public), s_i.dh(s_r.public), e_i.dh(e_r.public), s_i.dh(e_r.public)]
    after = fg1.rekey(
        suite, keys["root"], keys["binding"], body_1, body_2, secrets + ([shared] if hybrid else []))
    return {
        "ei_private": fixed(f"{name} rekey ei"),
        "er_private": fixed(f"{name} rekey er"),
        "e1_expanded": dk if hybrid else b"",
        "kem_ciphertext": ciphertext if hybrid else b"",
        "kem_shared": shared if hybrid else b"",
        "body_1": body_1,
        "body_2": body_2,
        **after,
        "records": records(suite, 1, after, i_channel, r_channel),
    }


def main():
    gateway = identity("gateway", [P256, Ed25519])
    collector = identity("collector", [P256])
    relay = identity("relay", [Ed25519, P256, P256])
    both = [fg1.HYBRID_AES, fg1.HYBRID_CHACHA, fg1.AES, fg1.CHACHA]
    identities = {"gateway": gateway, "collector": collector, "relay": relay}
    plan = [
        ("hybrid AES-GCM", fg1.HYBRID_AES, both[:2], "gateway", "collector", False, False, 0),
        ("hybrid ChaCha20", fg1.HYBRID_CHACHA, [both[1], both[0]], "gateway", "collector", False, True, 700),
        ("classical AES-GCM, cookie", fg1.AES, both[2:], "collector", "relay", True, False, 1),
        ("classical ChaCha20, cookie", fg1.CHACHA, [fg1.CHACHA], "relay", "gateway", True, True, 4096),
        ("hybrid offered, classical chosen", fg1.AES, both, "gateway", "collector", False, False, 0),
        ("unknown suite first", fg1.HYBRID_CHACHA, [0x01FF, both[1]], "gateway", "collector", False, False, 850),
    ]
    cases = []
    for name, suite, suites, initiator, responder, cookie, cached, presented in plan:
        case = handshake(
            name, suite, suites, identities[initiator], identities[responder], cookie, cached, presented)
        cases.append({"initiator": initiator, "responder": responder, **case})
    for who in identities.values():
        del who["static"], who["identity"]
    vectors = {
        "source": "generate.py, written from PROTOCOL.md; NOT made by the code it tests",
        "now": NOW,
        "identities": identities,
        "handshakes": cases,
    }
    text = json.dumps(vectors, indent=1, default=lambda data: data.hex())
    pathlib.Path(__file__).with_name("vectors.json").write_text(text + "\n")


main()
