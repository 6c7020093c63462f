"""Keys from the settings and from a JWKS URL: what is taken, what is refused, and what a broken URL does."""

from __future__ import annotations

import json
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
from tests.support.servers import reply, scripted
from tests.support.tokens import Makes, b64

JWKS = "/internal/services/jwks"


@pytest.fixture(autouse=True)
def nothing_remembered():
    sources._parse_all.cache_clear()
    sources._remote.cache_clear()
    yield
    sources._parse_all.cache_clear()
    sources._remote.cache_clear()


@pytest.fixture
def key(rsa_pool) -> JWK:
    return rsa_pool.take()


def public(key: JWK, **members: Any) -> dict[str, Any]:
    return {"use": "sig", "alg": "RS256", "kid": key.thumbprint()} | key.export_public(as_dict=True) | members


def pem(key: JWK, *, private: bool = False) -> str:
    return key.export_to_pem(private_key=private, password=None).decode()


class TestVerificationKeysFromTheSettings:
    @pytest.mark.parametrize(
        "spell",
        [
            pem,
            lambda key: "\n  " + pem(key) + "\n",
            lambda key: json.dumps(public(key)),
            lambda key: json.dumps({"keys": [public(key)]}),
            lambda key: pem(key, private=True),
        ],
        ids=["PEM", "PEM with space around", "JWK", "JWKS", "PEM of both halves"],
    )
    @pytest.mark.parametrize("place", ["text", "file"])
    def test_are_texts_or_files(self, key, settings, tmp_path, spell, place):
        text = spell(key)
        if place == "file":
            path = tmp_path / "key"
            path.write_text(text)
            settings.INSTACCESS = {"VERIFICATION_KEYS": [path]}
        else:
            settings.INSTACCESS = {"VERIFICATION_KEYS": [text]}

        keys = sources.verification_keys()

        assert list(keys) == [key.thumbprint()]
        assert not keys[key.thumbprint()].has_private

    def test_are_tried_in_their_order(self, rsa_pool, settings):
        made = [rsa_pool.take() for _ in range(3)]
        settings.INSTACCESS = {"VERIFICATION_KEYS": [pem(each) for each in made]}

        assert list(sources.verification_keys()) == [each.thumbprint() for each in made]

    def test_go_by_the_kid_that_their_owner_gave_them(self, key, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [json.dumps(public(key, kid="2026-11"))]}

        assert list(sources.verification_keys()) == ["2026-11"]

    def test_are_parsed_once(self, key, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [pem(key)]}

        assert sources.verification_keys() is sources.verification_keys()

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
    def test_that_are_bad_are_an_error_that_names_the_setting_and_not_the_key(self, settings, bad):
        settings.INSTACCESS = {"VERIFICATION_KEYS": [bad]}

        with pytest.raises(ConfigError, match="VERIFICATION_KEYS") as caught:
            sources.verification_keys()
        assert caught.value.setting == "VERIFICATION_KEYS"
        assert "SECRET" not in str(caught.value)


class TestDecryptionKeysFromTheSettings:
    @pytest.mark.parametrize(
        "spell",
        [
            lambda key: pem(key, private=True),
            lambda key: key.export_private(),
            lambda key: json.dumps({"use": "enc", "kid": key.thumbprint(), **key.export_private(as_dict=True)}),
        ],
        ids=["PEM", "JWK", "JWK with kid"],
    )
    def test_open_what_was_encrypted_for_them(self, rsa_pool, key, settings, spell):
        make = Makes(rsa_pool.take("sig"), key)
        settings.INSTACCESS = {"DECRYPTION_KEYS": [spell(key)]}

        assert jose.decrypt(make.encrypted(), sources.decryption_keys())[1] == key.thumbprint()

    def test_several_are_held_through_a_rotation(self, rsa_pool, settings, tmp_path):
        made = [rsa_pool.take() for _ in range(2)]
        for number, each in enumerate(made):
            (tmp_path / f"{number}.pem").write_text(pem(each, private=True))
        settings.INSTACCESS = {"DECRYPTION_KEYS": [str(tmp_path / "0.pem"), tmp_path / "1.pem"]}

        assert list(sources.decryption_keys()) == [each.thumbprint() for each in made]

    def test_that_are_public_halves_are_refused(self, key, settings):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [pem(key)]}

        with pytest.raises(ConfigError, match="needs a private key"):
            sources.decryption_keys()

    def test_whose_halves_do_not_belong_together_are_refused(self, rsa_pool, key, settings):
        mixed = key.export_private(as_dict=True) | {"n": rsa_pool.take().export_public(as_dict=True)["n"]}
        settings.INSTACCESS = {"DECRYPTION_KEYS": [json.dumps(mixed)]}

        with pytest.raises(ConfigError, match="DECRYPTION_KEYS") as caught:
            sources.decryption_keys()
        assert key.export_private(as_dict=True)["d"] not in str(caught.value)

    def test_of_one_kid_are_an_error_unless_they_are_one_key(self, rsa_pool, settings):
        one, other = (json.dumps({"kid": "gw"} | rsa_pool.take().export_private(as_dict=True)) for _ in range(2))
        settings.INSTACCESS = {"DECRYPTION_KEYS": [one, one]}
        assert list(sources.decryption_keys()) == ["gw"]

        settings.INSTACCESS = {"DECRYPTION_KEYS": [one, other]}
        with pytest.raises(ConfigError, match=r"INSTACCESS\['DECRYPTION_KEYS'\]\[1\].* kid an earlier"):
            sources.decryption_keys()

    def test_that_are_a_url_in_a_list_say_how_it_is_written(self, settings):
        settings.INSTACCESS = {"VERIFICATION_KEYS": ["https://canvas.example.edu/internal/services/jwks"]}

        with pytest.raises(ConfigError, match=r"\[0\] is a URL: write the URL as a string, not in a list"):
            sources.verification_keys()

    def test_in_a_file_that_cannot_be_read_are_an_error_without_the_path(self, settings, tmp_path):
        settings.INSTACCESS = {"DECRYPTION_KEYS": [tmp_path / "nothing.pem"]}

        with pytest.raises(ConfigError, match=r"DECRYPTION_KEYS.*FileNotFoundError"):
            sources.decryption_keys()


class TestReadingAJWKS:
    """C5: member by member; a bad one is skipped, and nothing is made up."""

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
    def test_c5_a_bad_member_is_skipped_and_the_good_one_beside_it_taken(self, key, bad):
        for members in ([bad, public(key)], [public(key), bad]):
            assert list(remote_jwks.read_jwks({"keys": members})) == [key.thumbprint()]

    def test_c1_a_symmetric_key_under_the_kid_of_a_token_verifies_nothing(self, rsa_pool, key):
        make = Makes(key, rsa_pool.take("enc"))
        secret = b64(key.export_to_pem())
        keys = remote_jwks.read_jwks({"keys": [{"kty": "oct", "k": secret, "kid": make.signing_kid, "alg": "HS256"}]})

        assert keys == {}
        with pytest.raises(InvalidToken):
            jose.verify(make.signed(), keys)

    def test_of_two_keys_of_one_kid_the_first_is_taken(self, rsa_pool, key, caplog):
        other = public(rsa_pool.take(), kid=key.thumbprint())

        (taken,) = remote_jwks.read_jwks({"keys": [public(key), other]}).values()
        assert taken.thumbprint() == key.thumbprint()
        assert "an earlier member has the same kid" in caplog.text

    def test_keys_for_something_else_are_left_out(self, rsa_pool, key):
        others = [
            public(rsa_pool.take(), use="enc"),
            public(rsa_pool.take(), alg="PS256"),
            public(rsa_pool.take(), alg="HS256"),
        ]

        assert list(remote_jwks.read_jwks({"keys": [*others, public(key)]})) == [key.thumbprint()]

    def test_a_key_without_use_alg_and_kid_is_taken(self, key):
        assert list(remote_jwks.read_jwks({"keys": [key.export_public(as_dict=True)]})) == [key.thumbprint()]

    def test_a_private_half_that_somebody_publishes_is_not_kept(self, key):
        keys = remote_jwks.read_jwks({"keys": [public(key) | key.export_private(as_dict=True)]})

        assert all(not each.has_private for each in keys.values())

    def test_no_more_members_are_looked_at_than_a_set_can_reasonably_have(self, key):
        filler = [{"kty": "oct"}] * remote_jwks.MAX_MEMBERS

        assert remote_jwks.read_jwks({"keys": [*filler, public(key)]}) == {}

    @pytest.mark.parametrize("document", [None, [], "x", {}, {"keys": None}, {"keys": {}}, {"keys": "x"}, 1])
    def test_what_is_no_set_at_all_is_unavailable(self, document):
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
    """An issuer whose JWKS says what a test wants, and the settings that make it the source."""
    with scripted(lambda handler: reply(handler, 200, document(key))) as script:
        settings.INSTACCESS = {"VERIFICATION_KEYS": script.base_url + JWKS, "ALLOW_HTTP_URLS": True}
        yield script


STALE = 300 + 60
"""Seconds after which the last good set no longer serves: JWKS_SECONDS and MAX_STALENESS."""


class TestAJWKSURL:
    def test_gives_the_keys_and_is_asked_once(self, jwks, key, clock):
        for _ in range(5):
            assert list(sources.verification_keys()) == [key.thumbprint()]

        (asked,) = jwks.asked
        assert (asked.method, asked.path) == ("GET", JWKS)
        assert "Authorization" not in asked.headers

    def test_is_asked_again_after_a_while(self, jwks, key, rsa_pool, clock):
        sources.verification_keys()
        other = rsa_pool.take()
        jwks.says(200, document(other, key))
        clock.now += remote_jwks.JWKS_SECONDS

        assert list(sources.verification_keys()) == [other.thumbprint(), key.thumbprint()]

    def test_a_key_that_left_the_set_is_refused_then(self, jwks, key, rsa_pool, clock):
        assert key.thumbprint() in sources.verification_keys()
        jwks.says(200, document(rsa_pool.take()))
        clock.now += remote_jwks.JWKS_SECONDS

        assert key.thumbprint() not in sources.verification_keys()

    def test_a_key_that_stays_is_not_parsed_anew(self, jwks, key, rsa_pool, clock):
        first = sources.verification_keys()[key.thumbprint()]
        jwks.says(200, document(rsa_pool.take(), key))
        clock.now += remote_jwks.JWKS_SECONDS

        assert sources.verification_keys()[key.thumbprint()] is first

    def test_c4_a_thousand_unknown_kids_bring_one_reading_a_cooldown(self, jwks, clock):
        keys = sources.verification_keys()
        for _ in range(1000):
            assert str(uuid.uuid4()) not in keys
        assert len(jwks.asked) == 2
        clock.now += remote_jwks.JWKS_COOLDOWN
        for _ in range(1000):
            assert keys.get(str(uuid.uuid4())) is None

        assert len(jwks.asked) == 3

    def test_c4_a_new_key_is_found_by_the_first_token_under_it(self, jwks, key, rsa_pool, clock):
        make = Makes(rsa_pool.take(), rsa_pool.take())
        keys = sources.verification_keys()
        jwks.says(200, document(key, make.signing))

        assert jose.verify(make.signed(), keys)[1] == make.signing_kid

    def test_c4_unknown_kids_in_many_threads_bring_one_reading(self, jwks, clock):
        keys = sources.verification_keys()
        threads = [threading.Thread(target=lambda: keys.get(str(uuid.uuid4()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(jwks.asked) == 2

    def test_is_read_once_for_all_threads_at_the_start(self, jwks):
        threads = [threading.Thread(target=sources.verification_keys) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(jwks.asked) == 1

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
    def test_c3_that_is_broken_leaves_the_last_good_set_up_to_a_maximum_age(self, jwks, key, clock, answer):
        first = sources.verification_keys()[key.thumbprint()]
        jwks.says(*answer)
        for _ in range(5):
            clock.now += STALE / 6
            assert sources.verification_keys()[key.thumbprint()] is first
        clock.now += STALE / 6 + 1
        with pytest.raises(SourceUnavailable):
            sources.verification_keys()

        jwks.says(200, document(key))
        assert list(sources.verification_keys()) == [key.thumbprint()]

    def test_c3_that_is_broken_from_the_start_is_unavailable(self, jwks):
        jwks.says(500)

        with pytest.raises(SourceUnavailable):
            sources.verification_keys()

    def test_c3_that_redirects_is_not_followed(self, jwks, key):
        with scripted(lambda handler: reply(handler, 200, document(key))) as elsewhere:
            jwks.says(302, Location=elsewhere.base_url + JWKS)
            with pytest.raises(SourceUnavailable):
                sources.verification_keys()

        assert elsewhere.asked == []

    def test_c3_that_hangs_is_left_after_the_time_out(self, jwks, monkeypatch):
        monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
        let_go = threading.Event()
        jwks.answer = lambda handler: let_go.wait(60)
        with pytest.raises(SourceUnavailable):
            sources.verification_keys()
        let_go.set()

    def test_c3_that_hangs_at_an_unknown_kid_leaves_the_last_good_set(self, jwks, key, clock, monkeypatch):
        keys = sources.verification_keys()
        monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
        let_go = threading.Event()
        jwks.answer = lambda handler: let_go.wait(60)

        assert "unknown" not in keys
        assert key.thumbprint() in keys
        let_go.set()

    def test_c4_that_hangs_at_an_unknown_kid_holds_one_thread_and_no_other(self, jwks, clock, monkeypatch):
        keys = sources.verification_keys()
        hangs, let_go = threading.Event(), threading.Event()

        def hang(handler: Any) -> None:
            hangs.set()
            let_go.wait(60)

        jwks.answer = hang
        with ThreadPoolExecutor(1) as thread:
            first = thread.submit(keys.get, "unknown")
            assert hangs.wait(60)
            clock.now += remote_jwks.PATIENCE

            # As often as strangers like: nobody waits.
            assert [keys.get(str(uuid.uuid4())) for _ in range(20)] == [None] * 20
            assert not first.done()
            let_go.set()

    @pytest.mark.parametrize(
        ("host", "why"), [("127.0.0.1:1", "NewConnectionError"), ("nowhere.invalid", "NameResolutionError")]
    )
    def test_that_can_t_be_reached_says_whether_the_name_or_the_server_is_missing(self, settings, host, why):
        settings.INSTACCESS = {"VERIFICATION_KEYS": f"http://{host}/jwks", "ALLOW_HTTP_URLS": True}

        with pytest.raises(SourceUnavailable, match=rf"\(ConnectionError: {why}\)"):
            sources.verification_keys()

    def test_with_a_password_in_it_is_refused_and_what_follows_a_question_mark_is_in_no_text(
        self, jwks, settings, clock
    ):
        jwks.says(500)
        url = settings.INSTACCESS["VERIFICATION_KEYS"]
        settings.INSTACCESS = {**settings.INSTACCESS, "VERIFICATION_KEYS": f"{url}?key=SECRET"}
        with pytest.raises(SourceUnavailable) as unavailable:
            sources.verification_keys()

        settings.INSTACCESS = {**settings.INSTACCESS, "VERIFICATION_KEYS": url.replace("//", "//ada:SECRET@")}
        with pytest.raises(ConfigError, match="without user name or password") as refused:
            sources.verification_keys()

        assert f"{url} answered 500" in str(unavailable.value)
        assert "SECRET" not in f"{unavailable.value} {refused.value}"

    def test_c10_over_http_is_refused_unless_it_is_allowed(self, jwks, settings):
        settings.INSTACCESS = {**settings.INSTACCESS, "ALLOW_HTTP_URLS": False}

        with pytest.raises(ConfigError, match="https"):
            sources.verification_keys()
        assert jwks.asked == []

    def test_keys_are_counted_and_listed_as_in_any_mapping(self, jwks, key):
        keys = sources.verification_keys()

        assert (len(keys), dict(keys)) == (1, {key.thumbprint(): keys[key.thumbprint()]})


@pytest.mark.django_db
class TestFromThisDatabase:
    def test_are_the_keys_where_nothing_else_is_said(self, initial_keys):
        signing, future, encryption = initial_keys

        assert set(sources.verification_keys()) == {signing.kid, future.kid}
        assert list(sources.decryption_keys()) == [encryption.kid]
