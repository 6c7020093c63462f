"""Tests of keys from the settings and from a JWKS URL: accepted keys, refused keys, and faulty URLs."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from instaccess.exceptions import ConfigError, InvalidToken, SourceUnavailable
from instaccess.tokens import jose
from instaccess.trust import fetch, remote_jwks, sources
from tests.support.clocks import Clock
from tests.support.servers import reply, scripted_server
from tests.support.tokens import TokenFactory, b64, canvas_claims, signed_by_pyjwt

JWKS = "/internal/services/jwks"


@pytest.fixture(autouse=True)
def empty_caches():
    """Clear the cached keys before and after each test."""
    sources._parse_decryption_keys.cache_clear()
    sources._parse_verification_keys.cache_clear()
    sources._remote.cache_clear()
    yield
    sources._parse_decryption_keys.cache_clear()
    sources._parse_verification_keys.cache_clear()
    sources._remote.cache_clear()


@pytest.fixture
def key(rsa_pool) -> JWK:
    return rsa_pool.take()


def public(key: JWK, **members: Any) -> dict[str, Any]:
    return {"use": "sig", "alg": "RS256", "kid": key.thumbprint()} | key.export_public(as_dict=True) | members


def pem(key: JWK, *, private: bool = False) -> str:
    return key.export_to_pem(private_key=private, password=None).decode()


class TestVerificationKeysFromSettings:
    @pytest.mark.parametrize(
        "serialize",
        [
            pem,
            lambda key: "\n  " + pem(key) + "\n",
            lambda key: json.dumps(public(key)),
            lambda key: json.dumps({"keys": [public(key)]}),
            lambda key: pem(key, private=True),
        ],
        ids=["PEM", "PEM with white space around it", "JWK", "JWKS", "private PEM"],
    )
    @pytest.mark.parametrize("place", ["text", "file"])
    def test_verification_keys_are_read_from_a_string_or_a_file(self, key, settings, tmp_path, serialize, place):
        text = serialize(key)
        if place == "file":
            path = tmp_path / "key"
            path.write_text(text)
            settings.INSTACCESS = {"VERIFICATION_KEYS": [path]}
        else:
            settings.INSTACCESS = {"VERIFICATION_KEYS": [text]}

        keys = sources.verification_keys()

        assert list(keys) == [key.thumbprint()]
        assert not keys[key.thumbprint()].has_private

    def test_verification_keys_keep_the_order_of_the_setting(self, rsa_pool, settings):
        pairs = [rsa_pool.take() for _ in range(3)]
        settings.INSTACCESS = {"VERIFICATION_KEYS": [pem(each) for each in pairs]}

        assert list(sources.verification_keys()) == [each.thumbprint() for each in pairs]

    def test_a_verification_key_keeps_the_kid_of_its_jwk(self, key, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [json.dumps(public(key, kid="2026-11"))]}

        assert list(sources.verification_keys()) == ["2026-11"]

    def test_verification_keys_are_parsed_once(self, key, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [pem(key)]}

        assert sources.verification_keys() is sources.verification_keys()

    def test_decryption_keys_are_parsed_once(self, key, settings):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [pem(key, private=True)]}

        assert sources.decryption_keys() is sources.decryption_keys()

    @pytest.mark.parametrize(
        "bad",
        [
            "garbage-SECRET",
            "-----BEGIN PUBLIC KEY-----\nSECRET\n-----END PUBLIC KEY-----\n",
            '{"kty":"RSA","n":"SECRET","e":"AQAB"}',
            '{"kty":"oct","k":"SECRET"}',
            '{"keys":[]}',
            '{"keys":"SECRET"}',
            '{"SECRET":',
            "[]",
            "/does/not/exist/SECRET\x00",
        ],
    )
    def test_the_error_for_an_invalid_verification_key_contains_the_setting_but_not_the_key(self, settings, bad):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [bad]}

        with pytest.raises(ConfigError, match="VERIFICATION_KEYS") as caught:
            sources.verification_keys()
        assert caught.value.setting == "VERIFICATION_KEYS"
        assert "SECRET" not in str(caught.value)


class TestDecryptionKeysFromSettings:
    @pytest.mark.parametrize(
        "serialize",
        [
            lambda key: pem(key, private=True),
            lambda key: key.export_private(),
            lambda key: json.dumps({"use": "enc", "kid": key.thumbprint(), **key.export_private(as_dict=True)}),
        ],
        ids=["PEM", "JWK", "JWK with kid"],
    )
    def test_a_decryption_key_decrypts_a_token_that_was_encrypted_for_this_key(
        self, rsa_pool, key, settings, serialize
    ):
        make = TokenFactory(rsa_pool.take("sig"), key)
        settings.INSTACCESS = {"DECRYPTION_KEYS": [serialize(key)]}

        assert jose.decrypt(make.encrypted(), sources.decryption_keys())[1] == key.thumbprint()

    def test_several_decryption_keys_can_be_configured_during_a_rotation(self, rsa_pool, settings, tmp_path):
        pairs = [rsa_pool.take() for _ in range(2)]
        for number, each in enumerate(pairs):
            (tmp_path / f"{number}.pem").write_text(pem(each, private=True))
        settings.INSTACCESS = {"DECRYPTION_KEYS": [str(tmp_path / "0.pem"), tmp_path / "1.pem"]}

        assert list(sources.decryption_keys()) == [each.thumbprint() for each in pairs]

    def test_a_public_key_is_refused_as_a_decryption_key(self, key, settings):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [pem(key)]}

        with pytest.raises(ConfigError, match="needs a private key"):
            sources.decryption_keys()

    def test_a_private_key_that_does_not_match_its_public_key_is_refused(self, rsa_pool, key, settings):
        mixed = key.export_private(as_dict=True) | {"n": rsa_pool.take().export_public(as_dict=True)["n"]}
        settings.INSTACCESS = {"DECRYPTION_KEYS": [json.dumps(mixed)]}

        with pytest.raises(ConfigError, match="DECRYPTION_KEYS") as caught:
            sources.decryption_keys()
        assert key.export_private(as_dict=True)["d"] not in str(caught.value)

    def test_two_decryption_keys_with_the_same_kid_are_refused_unless_the_keys_are_equal(self, rsa_pool, settings):
        first, second = (json.dumps({"kid": "gw"} | rsa_pool.take().export_private(as_dict=True)) for _ in range(2))
        settings.INSTACCESS = {"DECRYPTION_KEYS": [first, first]}
        assert list(sources.decryption_keys()) == ["gw"]

        for different in ([first, second], [second, first]):
            settings.INSTACCESS = {"DECRYPTION_KEYS": different}
            with pytest.raises(
                ConfigError, match=r"INSTACCESS\['DECRYPTION_KEYS'\]\[1\].* kid of an earlier"
            ) as error:
                sources.decryption_keys()
            assert error.value.setting == "DECRYPTION_KEYS"

    def test_error_for_a_url_in_a_list_of_verification_keys_describes_the_correct_form(self, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": ["https://canvas.example.edu/internal/services/jwks"]}

        with pytest.raises(ConfigError, match=r"\[0\] is a URL: write the URL as a string, not in a list") as caught:
            sources.verification_keys()
        assert caught.value.setting == "VERIFICATION_KEYS"

    def test_the_error_for_an_unreadable_key_file_names_the_setting(self, settings, tmp_path):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [tmp_path / "nothing.pem"]}

        with pytest.raises(ConfigError, match=r"DECRYPTION_KEYS.*FileNotFoundError"):
            sources.decryption_keys()


class TestReadingAJWKSet:
    """Tests that each member of a JWK set is accepted or skipped separately (cases C1, C5 and C13)."""

    @pytest.mark.parametrize(
        "bad",
        [
            {"generate": "RSA", "size": 2048},
            {"kty": "RSA", "generate": "RSA", "size": 2048, "kid": "x"},
            {"kty": "oct", "k": b64(b"k" * 32), "kid": "x"},
            {"kty": "oct", "k": b64(b"k" * 32), "kid": "x", "use": "sig", "alg": "HS256"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "sig"},
            {"kty": "RSA"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kty": "RSA", "n": 5, "e": []},
            {},
            None,
            "RSA",
            [],
            7,
        ],
        ids=str,
    )
    def test_c5_invalid_member_of_a_jwk_set_is_skipped_and_a_valid_member_is_accepted(self, key, bad):
        for members in ([bad, public(key)], [public(key), bad]):
            assert list(remote_jwks.read_jwks({"keys": members})) == [key.thumbprint()]

    @pytest.mark.parametrize(
        "members",
        [
            {"use": "enc"},
            {"use": "enc", "key_ops": ["verify"]},
            {"key_ops": ["encrypt"]},
            {"key_ops": ["sign"]},
            {"key_ops": []},
            {"key_ops": "verify"},
            {"key_ops": None},
            {"use": "verify"},
            {"use": None},
            {"use": ["sig"]},
            {"alg": "RS512"},
            {"alg": None},
        ],
        ids=str,
    )
    def test_c13_member_of_a_jwk_set_that_is_not_for_verification_is_ignored(self, rsa_pool, key, members):
        other = public(rsa_pool.take(), **members)

        assert list(remote_jwks.read_jwks({"keys": [other, public(key)]})) == [key.thumbprint()]

    @pytest.mark.parametrize("key_ops", [["verify"], ["verify", "encrypt"]])
    def test_c13_member_of_a_jwk_set_with_verify_in_its_key_ops_is_accepted(self, key, key_ops):
        member = public(key, key_ops=key_ops)
        del member["use"]

        assert list(remote_jwks.read_jwks({"keys": [member]})) == [key.thumbprint()]

    def test_c1_a_symmetric_key_with_the_kid_of_a_token_verifies_no_token(self, rsa_pool, key):
        make = TokenFactory(key, rsa_pool.take("enc"))
        secret = b64(key.export_to_pem())
        keys = remote_jwks.read_jwks({"keys": [{"kty": "oct", "k": secret, "kid": make.signing_kid, "alg": "HS256"}]})

        assert keys == {}
        with pytest.raises(InvalidToken):
            jose.verify(make.signed(), keys)

    def test_only_the_first_of_two_members_of_a_jwk_set_with_the_same_kid_is_accepted(self, rsa_pool, key, caplog):
        same_kid, later = public(rsa_pool.take(), kid=key.thumbprint()), rsa_pool.take()

        accepted = remote_jwks.read_jwks({"keys": [public(key), same_kid, public(later)]})
        assert [member.thumbprint() for member in accepted.values()] == [key.thumbprint(), later.thumbprint()]
        assert "an earlier member has the same kid" in caplog.text

    def test_members_of_a_jwk_set_for_another_use_or_algorithm_are_skipped(self, rsa_pool, key):
        others = [
            public(rsa_pool.take(), use="enc"),
            public(rsa_pool.take(), alg="PS256"),
            public(rsa_pool.take(), alg="HS256"),
            public(rsa_pool.take(), alg="RS384"),
        ]

        assert list(remote_jwks.read_jwks({"keys": [*others, public(key)]})) == [key.thumbprint()]

    def test_member_of_a_jwk_set_without_use_alg_and_kid_is_accepted(self, key):
        assert list(remote_jwks.read_jwks({"keys": [key.export_public(as_dict=True)]})) == [key.thumbprint()]

    def test_private_key_in_a_jwk_set_is_reduced_to_its_public_key(self, key):
        keys = remote_jwks.read_jwks({"keys": [public(key) | key.export_private(as_dict=True)]})

        assert all(not each.has_private for each in keys.values())

    def test_members_of_a_jwk_set_beyond_the_limit_are_not_read(self, key):
        filler = [{"kty": "oct"}] * 31

        assert list(remote_jwks.read_jwks({"keys": [*filler, public(key)]})) == [key.thumbprint()]
        assert remote_jwks.read_jwks({"keys": [*filler, {"kty": "oct"}, public(key)]}) == {}

    @pytest.mark.parametrize("document", [None, [], "x", {}, {"keys": None}, {"keys": {}}, {"keys": "x"}, 1])
    def test_a_document_that_is_not_a_jwk_set_raises_source_unavailable(self, document):
        with pytest.raises(SourceUnavailable):
            remote_jwks.read_jwks(document)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("instaccess.trust.refreshed.time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("instaccess.trust.remote_jwks.time", SimpleNamespace(monotonic=clock))
    return clock


def document(*keys: JWK) -> bytes:
    return json.dumps({"keys": [public(key) for key in keys]}).encode()


@pytest.fixture
def jwks(key, settings):
    """Run a server with an answer that the test can change, and set VERIFICATION_KEYS to the URL of the server."""
    with scripted_server(lambda handler: reply(handler, 200, document(key))) as script:
        settings.INSTACCESS = {"VERIFICATION_KEYS": script.base_url + JWKS, "ALLOW_HTTP_URLS": True}
        yield script


STALE = 300 + 60
"""The number of seconds after which the last good JWK set is no longer used: JWKS_SECONDS plus MAX_STALENESS."""


class TestKeysOfAJWKSURL:
    def test_keys_of_a_jwks_url_are_fetched_once_and_cached(self, jwks, key, clock):
        for _ in range(5):
            assert list(sources.verification_keys()) == [key.thumbprint()]

        (request,) = jwks.requests
        assert (request.method, request.path) == ("GET", JWKS)
        assert "Authorization" not in request.headers

    def test_keys_of_a_jwks_url_are_fetched_again_after_five_minutes(self, jwks, key, rsa_pool, clock):
        sources.verification_keys()
        other = rsa_pool.take()
        jwks.answer_with(200, document(other, key))
        clock.now += 299

        assert list(sources.verification_keys()) == [key.thumbprint()]
        clock.now += 1
        assert list(sources.verification_keys()) == [other.thumbprint(), key.thumbprint()]

    def test_a_key_that_was_removed_from_the_jwks_is_no_longer_returned(self, jwks, key, rsa_pool, clock):
        assert key.thumbprint() in sources.verification_keys()
        jwks.answer_with(200, document(rsa_pool.take()))
        clock.now += remote_jwks.JWKS_SECONDS

        assert key.thumbprint() not in sources.verification_keys()

    def test_unchanged_key_of_a_jwks_url_keeps_its_jwk_object(self, jwks, key, rsa_pool, clock):
        first = sources.verification_keys()[key.thumbprint()]
        jwks.answer_with(200, document(rsa_pool.take(), key))
        clock.now += remote_jwks.JWKS_SECONDS

        assert sources.verification_keys()[key.thumbprint()] is first

    def test_c4_a_thousand_unknown_kids_cause_one_fetch_per_30_seconds(self, jwks, clock):
        keys = sources.verification_keys()
        for _ in range(1000):
            assert str(uuid.uuid4()) not in keys
        assert len(jwks.requests) == 2
        clock.now += 30
        for _ in range(1000):
            assert keys.get(str(uuid.uuid4())) is None

        assert len(jwks.requests) == 3

    def test_c4_the_first_token_that_is_signed_with_a_new_key_causes_a_fetch(self, jwks, key, rsa_pool, clock):
        make = TokenFactory(rsa_pool.take(), rsa_pool.take())
        keys = sources.verification_keys()
        jwks.answer_with(200, document(key, make.signing))

        assert jose.verify(make.signed(), keys)[1] == make.signing_kid

    def test_c14_a_token_without_a_kid_that_is_signed_with_a_new_key_causes_a_fetch(self, jwks, key, rsa_pool, clock):
        new = rsa_pool.take()
        keys = sources.verification_keys()
        jwks.answer_with(200, document(new, key))

        assert jose.verify(signed_by_pyjwt(canvas_claims(), new), keys)[1] == new.thumbprint()
        assert len(jwks.requests) == 2

    def test_c14_tokens_without_a_kid_and_unknown_kids_share_the_limit_of_one_fetch_per_30_seconds(
        self, jwks, rsa_pool, clock
    ):
        forged = signed_by_pyjwt(canvas_claims(), rsa_pool.take())
        keys = sources.verification_keys()
        for _ in range(20):
            with pytest.raises(InvalidToken, match="bad_signature"):
                jose.verify(forged, keys)
            assert str(uuid.uuid4()) not in keys

        assert len(jwks.requests) == 2

    @pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
    def test_c16_a_jwks_with_the_content_encoding_identity_is_read(self, jwks, key, encoding):
        jwks.answer_with(200, document(key), Content_Encoding=encoding)

        assert list(sources.verification_keys()) == [key.thumbprint()]

    @pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "br"])
    def test_c16_a_compressed_jwks_is_refused(self, jwks, key, encoding):
        jwks.answer_with(200, gzip.compress(document(key)), Content_Encoding=encoding)

        with pytest.raises(SourceUnavailable, match="compressed"):
            sources.verification_keys()

    def test_c16_a_jwks_with_a_byte_order_mark_is_read(self, jwks, key):
        jwks.answer_with(200, b"\xef\xbb\xbf" + document(key))

        assert list(sources.verification_keys()) == [key.thumbprint()]

    def test_c16_a_jwks_that_is_sent_in_chunks_is_read(self, jwks, key):
        def chunked(handler: Any) -> None:
            handler.protocol_version = "HTTP/1.1"
            handler.close_connection = True
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            body = document(key)
            for start in range(0, len(body), 100):
                part = body[start : start + 100]
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            handler.wfile.write(b"0\r\n\r\n")

        jwks.answer = chunked

        assert list(sources.verification_keys()) == [key.thumbprint()]

    def test_c4_unknown_kids_in_several_threads_cause_one_fetch(self, jwks, clock):
        keys = sources.verification_keys()
        threads = [threading.Thread(target=lambda: keys.get(str(uuid.uuid4()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(jwks.requests) == 2

    def test_several_threads_share_the_first_fetch_of_a_jwks(self, jwks):
        threads = [threading.Thread(target=sources.verification_keys) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(jwks.requests) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            (500, b""),
            (503, b"{}"),
            (404, b"<html>"),
            (200, b""),
            (200, b"{}"),
            (200, b'{"keys": []}'),
            (200, b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'),
            (200, b'{"keys": [{"generate": "RSA", "size": 2048}]}'),
            (200, b"[" * 100_000),
            (200, b" " * (10 * 1024 * 1024)),
        ],
        ids=lambda answer: f"{answer[0]}-{answer[1][:20]!r}",
    )
    def test_c3_last_good_jwks_stays_in_use_until_its_maximum_age_if_the_jwks_url_is_faulty(
        self, jwks, key, clock, answer
    ):
        first = sources.verification_keys()[key.thumbprint()]
        jwks.answer_with(*answer)
        for _ in range(5):
            clock.now += STALE / 6
            assert sources.verification_keys()[key.thumbprint()] is first
        clock.now += STALE / 6 + 1
        with pytest.raises(SourceUnavailable):
            sources.verification_keys()

        jwks.answer_with(200, document(key))
        assert list(sources.verification_keys()) == [key.thumbprint()]

    def test_c3_faulty_jwks_url_raises_source_unavailable_if_no_jwks_was_ever_read(self, jwks):
        jwks.answer_with(500)

        with pytest.raises(SourceUnavailable):
            sources.verification_keys()

    def test_c3_redirect_of_a_jwks_url_is_not_followed(self, jwks, key):
        with scripted_server(lambda handler: reply(handler, 200, document(key))) as other_server:
            jwks.answer_with(302, Location=other_server.base_url + JWKS)
            with pytest.raises(SourceUnavailable):
                sources.verification_keys()

        assert other_server.requests == []

    def test_c3_request_to_a_jwks_server_that_stalls_ends_after_the_timeout(self, jwks, monkeypatch):
        monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
        release = threading.Event()
        jwks.answer = lambda handler: release.wait(60)
        with pytest.raises(SourceUnavailable):
            sources.verification_keys()
        release.set()

    def test_c3_last_good_jwks_stays_in_use_if_the_server_stalls_after_an_unknown_kid(
        self, jwks, key, clock, monkeypatch
    ):
        keys = sources.verification_keys()
        monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
        release = threading.Event()
        jwks.answer = lambda handler: release.wait(60)

        assert "unknown" not in keys
        assert key.thumbprint() in keys
        release.set()

    def test_c4_a_server_that_stalls_after_an_unknown_kid_blocks_only_one_thread(self, jwks, clock, monkeypatch):
        keys = sources.verification_keys()
        stalled, release = threading.Event(), threading.Event()

        def stall(handler: Any) -> None:
            stalled.set()
            release.wait(60)

        jwks.answer = stall
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(keys.get, "unknown")
            assert stalled.wait(60)
            clock.now += 5

            # If every thread waited for the server, an attacker who sends unknown kids could block all threads.
            assert [keys.get(str(uuid.uuid4())) for _ in range(20)] == [None] * 20
            assert not first.done()
            release.set()

    @pytest.mark.parametrize(
        ("host", "cause"), [("127.0.0.1:1", "NewConnectionError"), ("nowhere.invalid", "NameResolutionError")]
    )
    def test_error_for_an_unreachable_jwks_url_distinguishes_name_resolution_from_connection(
        self, settings, host, cause
    ):
        settings.INSTACCESS = {"VERIFICATION_KEYS": f"http://{host}/jwks", "ALLOW_HTTP_URLS": True}

        with pytest.raises(SourceUnavailable, match=rf"\(ConnectionError: {cause}\)"):
            sources.verification_keys()

    def test_jwks_url_with_a_password_is_refused_and_no_error_contains_the_query_of_the_url(
        self, jwks, settings, clock
    ):
        jwks.answer_with(500)
        url = settings.INSTACCESS["VERIFICATION_KEYS"]
        settings.INSTACCESS = {**settings.INSTACCESS, "VERIFICATION_KEYS": f"{url}?key=SECRET"}
        with pytest.raises(SourceUnavailable) as unavailable:
            sources.verification_keys()

        settings.INSTACCESS = {**settings.INSTACCESS, "VERIFICATION_KEYS": url.replace("//", "//ada:SECRET@")}
        with pytest.raises(ConfigError, match="without user name or password") as refused:
            sources.verification_keys()

        assert f"{url} answered 500" in str(unavailable.value)
        assert "SECRET" not in f"{unavailable.value} {refused.value}"

    def test_c10_jwks_url_with_http_is_refused_unless_http_is_allowed(self, jwks, settings):
        settings.INSTACCESS = {**settings.INSTACCESS, "ALLOW_HTTP_URLS": False}

        with pytest.raises(ConfigError, match="https"):
            sources.verification_keys()
        assert jwks.requests == []

    def test_keys_of_a_jwks_url_can_be_counted_and_iterated_like_any_mapping(self, jwks, key):
        keys = sources.verification_keys()

        assert (len(keys), dict(keys)) == (1, {key.thumbprint(): keys[key.thumbprint()]})


def _look_up_a_new_key(keys: remote_jwks.RemoteKeys, kid: str, pipe: Any) -> None:
    """Load the JWK set, wait until the server publishes the new key, and send whether the key is found."""
    keys.ensure_loaded()
    pipe.send("loaded")
    pipe.recv()
    pipe.send(keys.get(kid) is not None)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
class TestAForkedProcess:
    def test_c4_child_process_finds_a_new_key_even_if_its_parent_was_reloading_during_the_fork(
        self, jwks, key, rsa_pool, monkeypatch
    ):
        for limit in ("TIMEOUT", "BODY_SECONDS"):
            monkeypatch.setattr(fetch, limit, 60)
        keys, new = sources.verification_keys(), rsa_pool.take()
        context = multiprocessing.get_context("fork")
        parent_end, child_end = context.Pipe()
        # Hold the lock during the fork, as a thread of a real parent process can do. The child process must not wait
        # for the lock, because no thread of the child process would release the lock.
        with keys._refetch_lock:
            child = context.Process(target=_look_up_a_new_key, args=(keys, new.thumbprint(), child_end))
            child.start()
        assert parent_end.poll(60)
        assert parent_end.recv() == "loaded"
        jwks.answer_with(200, document(new, key))
        parent_end.send("published")
        assert parent_end.poll(60)
        assert parent_end.recv()
        child.join()
        child.close()


@pytest.mark.django_db
class TestKeysOfThisDatabase:
    def test_keys_of_the_database_are_used_if_no_setting_lists_keys(self, initial_keys):
        signing, future, encryption = initial_keys

        assert set(sources.verification_keys()) == {signing.kid, future.kid}
        assert list(sources.decryption_keys()) == [encryption.kid]

    @pytest.mark.parametrize(
        ("load", "setting"),
        [(sources.decryption_keys, "DECRYPTION_KEYS"), (sources.verification_keys, "VERIFICATION_KEYS")],
    )
    def test_error_of_a_process_without_a_key_table_names_the_setting(self, monkeypatch, load, setting):
        monkeypatch.setattr(sources._key_table, "load_ring", None)
        assert not sources.has_key_table()

        with pytest.raises(ConfigError, match="this process has no key table") as caught:
            load()
        assert caught.value.setting == setting

    @pytest.mark.parametrize("load", [sources.decryption_keys, sources.verification_keys])
    def test_caller_sets_the_maximum_staleness_of_the_keys_of_the_database(self, initial_keys, monkeypatch, load):
        requested: list[float] = []
        load_ring: Any = sources._key_table.load_ring
        monkeypatch.setattr(sources._key_table, "load_ring", lambda time: requested.append(time) or load_ring(time))
        load()
        load(max_staleness=60)

        assert requested == [0, 60]
