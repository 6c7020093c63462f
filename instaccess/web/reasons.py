"""What each reason code means, for a person, and what to do about it: the words that the uniform 401 hides.

One entry a code, or `code:variant` where more is known than the code says. Answers to clients never use these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _


class Explanation(NamedTuple):
    """Both are translated when they are turned into text."""

    meaning: Any
    advice: Any


EXPLANATIONS: Mapping[str, Explanation] = {
    # Good
    "accepted:gateway": Explanation(
        _("The gateway lets this token through and hands the signed token inside to the service."),
        _("If requests with it fail all the same, look at the service: its log names the reason."),
    ),
    "accepted:service": Explanation(
        _("A service accepts this signed token. It is what the gateway hands on, and it asks no deny list."),
        _(
            "It belongs between the gateway and the services only. If it was seen anywhere else, revoke it and find "
            "out how it got there."
        ),
    ),
    # What was pasted
    "no_credentials": Explanation(_("There is no token."), _("Paste the token, or the Authorization header.")),
    "malformed_header": Explanation(
        _("The Authorization header does not hold exactly one bearer token."),
        _("Send one header, “Authorization: Bearer” and the token, with nothing after it."),
    ),
    "other_bearer": Explanation(
        _("This is not an InstAccess token. It was not looked up, and it is not shown."),
        _(
            "If it is an OAuth2 access token, trade it for an InstAccess token at POST /api/v1/inst_access_tokens "
            "and send that one. If it was to be an InstAccess token, it is not whole: copy it again."
        ),
    ),
    "foreign_issuer": Explanation(
        _("A token of another issuer: its “iss” is not the one that INSTACCESS['ISSUER'] names."),
        _("Ask whoever issued it, or compare ISSUER here and at the issuer."),
    ),
    "too_long": Explanation(
        _("It is longer than any token we issue, so it was not even parsed."),
        _("Paste one token alone. If it is one, it was made by somebody else."),
    ),
    "malformed": Explanation(
        _(
            "It does not have the one spelling that a token has: characters are missing or added, it was encoded a "
            "second time, or what is in it is not strict JSON."
        ),
        _("Copy the token again, whole. If a client sends it so, that client or a proxy changes it on the way."),
    ),
    "invalid": Explanation(_("It is refused."), _("The detail says why.")),
    # Headers
    "bad_header": Explanation(
        _(
            "Its header has a member that we never write, such as “zip”, “crit” or “jwk”, or one that is not plain "
            "text. It was refused before any key was used."
        ),
        _("Our issuer did not make it. Find out where it comes from: this is what an attack looks like."),
    ),
    "wrong_alg": Explanation(
        _("It names an algorithm that is not accepted here."),
        _(
            "Tokens of Canvas under RSA1_5 are accepted only where INSTACCESS['ENCRYPTION_ALG'] says so. Our issuer "
            "makes no others: “none” or HS256 is what an attack looks like."
        ),
    ),
    "wrong_type": Explanation(
        _("Its header says that it is something else than a token, though it is encrypted or signed like one."),
        _("Paste the InstAccess token. Statements of the audit, for one, are signed by the same key."),
    ),
    # Keys
    "unknown_kid": Explanation(
        _("It is under a key that is not held here."),
        _(
            "It comes from another deployment, or was made up; or a key was imported or rotated and has not arrived "
            "here. Compare its key id with the list of keys."
        ),
    ),
    "unknown_kid:revoked": Explanation(
        _("It is under a key that was revoked: every token under it is refused, and nothing it says is certain."),
        _("The client needs a new token. Whoever has the stolen key can still make tokens like this one."),
    ),
    "unknown_kid:gone": Explanation(
        _("It is under a key that retired so long ago that every token under it has expired."),
        _("The client keeps its token for too long: it must get a new one before an hour has passed."),
    ),
    "unknown_kid:elsewhere": Explanation(
        _("Only the public half of its encryption key is held here: nothing but the gateway can open it."),
        _("Inspect it where the gateway keeps its keys, or paste the signed token that is handed on to services."),
    ),
    "decrypt_failed": Explanation(
        _("No key opens it: it was damaged or altered, or encrypted for somebody else."),
        _("Copy it again, whole. If it names no key, only the three latest keys were tried."),
    ),
    "bad_signature": Explanation(
        _("Its signature is not that of the key it names: somebody altered or forged it, or it was damaged."),
        _("Nothing it says can be believed. Copy it again, whole; if it stays so, find out who made it."),
    ),
    # Claims
    "bad_claim": Explanation(
        _("A claim that must be there is missing, or is of the wrong type."),
        _("The detail names the claim. Whoever signs with our key must write it as the contract says."),
    ),
    "bad_lifetime": Explanation(
        _("It claims to live longer than an hour, or to end before it begins."),
        _("Our issuer makes no such token: find out what else signs with its key."),
    ),
    "expired": Explanation(
        _("It was good and has expired."),
        _("The client needs a new token: they live one hour at most."),
    ),
    "not_yet": Explanation(
        _("It is not valid yet: it was issued in the future."),
        _("Compare the clocks of the issuer and of this machine."),
    ),
    "revoked": Explanation(
        _("It was revoked, and is on the deny list until it has expired."),
        _("Its audit row says who revoked it and why. The client needs a new token, if it may have one."),
    ),
    # Decrypted, or still encrypted
    "already_decrypted": Explanation(
        _("A signed token that is not encrypted: the gateway refuses it from outside."),
        _("Clients must send the encrypted token, as they got it. A signed one has leaked from behind the gateway."),
    ),
    "still_encrypted": Explanation(
        _("A service got the encrypted token."),
        _("Send the request through the gateway, which opens it."),
    ),
    # Who it is about
    "unknown_user": Explanation(
        _("The user it is about is unknown here or inactive, so a service refuses it."),
        _("Look the user up by the uuid in “sub”."),
    ),
    "unknown_masquerader": Explanation(
        _("The user who masquerades is unknown here or inactive, so a service refuses it."),
        _("Look the real user up by the uuid in “masq_sub”."),
    ),
    "wrong_account": Explanation(
        _("It is for another account than this service's, so the service refuses it."),
        _("Compare “acct” with INSTACCESS['ACCOUNT_UUID']."),
    ),
    # Faults of ours
    "no_key": Explanation(
        _("There is no key to decide it with. That is a fault of this deployment, not of the token."),
        _("The detail names the command that makes keys. Until then every request gets a 503."),
    ),
    "no_key:elsewhere": Explanation(
        _("No private encryption key is held here: nothing but the gateway can open it."),
        _("Inspect it where the gateway keeps its keys, or paste the signed token that is handed on to services."),
    ),
    "unseal": Explanation(
        _("A private key does not open. That is a fault of this deployment, not of the token."),
        _("Put the right key-encryption key back: see INSTACCESS['KEY_ENCRYPTION_KEYS'] and SECRET_KEY_FALLBACKS."),
    ),
    "kek_missing": Explanation(
        _("Its private key was sealed under a key-encryption key that is not configured. That is a fault of ours."),
        _("Put the key-encryption key back: see INSTACCESS['KEY_ENCRYPTION_KEYS'], or SECRET_KEY_FALLBACKS."),
    ),
    "seal_broken": Explanation(
        _("Its private key does not open though the key-encryption key is the right one: its row was altered."),
        _("Restore the row from a backup. Until then every request under this key gets a 503."),
    ),
    "source_unavailable": Explanation(
        _("Keys or the deny list can't be read from their server, and what is known of them is too old."),
        _("See that this machine reaches the address in the detail. Until then every request gets a 503."),
    ),
    "config": Explanation(
        _("A setting is missing or bad. That is a fault of this deployment, not of the token."),
        _("Run `python manage.py check`: it names the setting and what it takes."),
    ),
    "fault": Explanation(
        _("Something failed here. That is a fault of this deployment, not of the token."),
        _("The log says what. A gateway in this state answers 503 and lets nothing through."),
    ),
}


def explain(code: str, variant: str = "") -> Explanation:
    """What a reason code means; the variant's own words where it has some."""
    return EXPLANATIONS.get(f"{code}:{variant}") or EXPLANATIONS.get(code) or EXPLANATIONS["invalid"]
