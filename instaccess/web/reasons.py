"""What each reason code means, for a person, and what to do about it: the words that the uniform 401 hides.

Answers to clients never use these.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _

from ..exceptions import Reason


class Explanation(NamedTuple):
    """Both are translated when they are turned into text."""

    meaning: Any
    advice: Any


EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.NO_CREDENTIALS: Explanation(_("There is no token."), _("Paste the token, or the Authorization header.")),
    Reason.MALFORMED_HEADER: Explanation(
        _("The Authorization header does not hold exactly one bearer token."),
        _("Send one header, “Authorization: Bearer” and the token, with nothing after it."),
    ),
    Reason.MALFORMED: Explanation(
        _(
            "It does not have the one spelling that a token has: characters are missing or added, it was encoded a "
            "second time, or what is in it is not strict JSON."
        ),
        _("Copy the token again, whole. If a client sends it so, that client or a proxy changes it on the way."),
    ),
    Reason.TOO_LONG: Explanation(
        _("It is longer than any token we issue, so it was not even parsed."),
        _("Paste one token alone. If it is one, it was made by somebody else."),
    ),
    Reason.BAD_HEADER: Explanation(
        _(
            "Its header has a member that we never write, such as “zip”, “crit” or “jwk”, or one that is not plain "
            "text. It was refused before any key was used."
        ),
        _("Our issuer did not make it. Find out where it comes from: this is what an attack looks like."),
    ),
    Reason.WRONG_ALG: Explanation(
        _("It names an algorithm that is not accepted here."),
        _(
            "Tokens of Canvas under RSA1_5 are accepted only where INSTACCESS['ENCRYPTION_ALG'] says so. Our issuer "
            "makes no others: “none” or HS256 is what an attack looks like."
        ),
    ),
    Reason.WRONG_TYPE: Explanation(
        _("Its header says that it is something else than a token, though it is encrypted or signed like one."),
        _("Paste the InstAccess token. Statements of the audit, for one, are signed by the same key."),
    ),
    Reason.DECRYPT_FAILED: Explanation(
        _("No key opens it: it was damaged or altered, or encrypted for somebody else."),
        _("Copy it again, whole. If it names no key, only the three latest keys were tried."),
    ),
    Reason.UNKNOWN_KID: Explanation(
        _("It is under a key that is not held here."),
        _(
            "It comes from another deployment, or was made up; or a key was imported or rotated and has not arrived "
            "here. Compare its key id with the list of keys."
        ),
    ),
    Reason.BAD_SIGNATURE: Explanation(
        _("Its signature is not that of the key it names: somebody altered or forged it, or it was damaged."),
        _("Nothing it says can be believed. Copy it again, whole; if it stays so, find out who made it."),
    ),
    Reason.BAD_CLAIM: Explanation(
        _("A claim that must be there is missing, or is of the wrong type."),
        _("The detail names the claim. Whoever signs with our key must write it as the contract says."),
    ),
    Reason.BAD_LIFETIME: Explanation(
        _("It claims to live longer than an hour, or to end before it begins."),
        _("Our issuer makes no such token: find out what else signs with its key."),
    ),
    Reason.NOT_YET: Explanation(
        _("It is not valid yet: it was issued in the future."),
        _("Compare the clocks of the issuer and of this machine."),
    ),
    Reason.INVALID: Explanation(_("It is refused."), _("The detail says why.")),
    Reason.FOREIGN_ISSUER: Explanation(
        _("A token of another issuer: its “iss” is not the one that INSTACCESS['ISSUER'] names."),
        _("Ask whoever issued it, or compare ISSUER here and at the issuer."),
    ),
    Reason.EXPIRED: Explanation(
        _("It was good and has expired."),
        _("The client needs a new token: they live one hour at most."),
    ),
    Reason.REVOKED: Explanation(
        _("It was revoked, and is on the deny list until it has expired."),
        _("Its audit row says who revoked it and why. The client needs a new token, if it may have one."),
    ),
    Reason.ALREADY_DECRYPTED: Explanation(
        _("A signed token that is not encrypted: the gateway refuses it from outside."),
        _("Clients must send the encrypted token, as they got it. A signed one has leaked from behind the gateway."),
    ),
    Reason.OTHER_BEARER: Explanation(
        _("This is not an InstAccess token. It was not looked up, and it is not shown."),
        _(
            "If it is an OAuth2 access token, trade it for an InstAccess token at POST /api/v1/inst_access_tokens "
            "and send that one. If it was to be an InstAccess token, it is not whole: copy it again."
        ),
    ),
    Reason.STILL_ENCRYPTED: Explanation(
        _("A service got the encrypted token."),
        _("Send the request through the gateway, which opens it."),
    ),
    Reason.UNKNOWN_USER: Explanation(
        _("The user it is about is unknown here or inactive, so a service refuses it."),
        _("Look the user up by the uuid in “sub”."),
    ),
    Reason.UNKNOWN_MASQUERADER: Explanation(
        _("The user who masquerades is unknown here or inactive, so a service refuses it."),
        _("Look the real user up by the uuid in “masq_sub”."),
    ),
    Reason.WRONG_ACCOUNT: Explanation(
        _("It is for another account than this service's, so the service refuses it."),
        _("Compare “acct” with INSTACCESS['ACCOUNT_UUID']."),
    ),
    Reason.JWT_FROM_JWT: Explanation(
        _(
            "The caller authenticated with an InstAccess token. An InstAccess token cannot be exchanged for "
            "another one."
        ),
        _("Send the OAuth2 access token to the issuing endpoint."),
    ),
    Reason.BROKEN_JWT: Explanation(
        _("The caller sent an InstAccess token that is expired, forged or damaged to the issuing endpoint."),
        _("Send the OAuth2 access token instead. If many of these arrive, find out who sends them."),
    ),
    Reason.UNKNOWN_TOKEN: Explanation(
        _("There is no such OAuth2 access token, or it was revoked."),
        _("The client must get a new access token."),
    ),
    Reason.NO_USER: Explanation(
        _("The OAuth2 access token has no user, and its application has no service user."),
        _("Bind the application to a service user in the admin, or use a grant that involves a user."),
    ),
    Reason.NO_APPLICATION: Explanation(
        _("The OAuth2 access token has no application."),
        _("The client must get a new access token through an application."),
    ),
    Reason.INACTIVE_USER: Explanation(
        _("The user of the OAuth2 access token is inactive."),
        _("Activate the user if they should have access."),
    ),
    Reason.REFUSED_BY_VALIDATOR: Explanation(
        _(
            "The OAuth2 validator refused the access token: it is restricted to another resource, or its "
            "application is unusable."
        ),
        _('See the validator that OAUTH2_PROVIDER["OAUTH2_VALIDATOR_CLASS"] names, and the application.'),
    ),
    Reason.INSUFFICIENT_SCOPE: Explanation(
        _("The OAuth2 access token lacks the scope that issuing needs."),
        _("The client must ask for the scope url:POST|/api/v1/inst_access_tokens when it gets its access token."),
    ),
    Reason.AS_USER_ID: Explanation(
        _("The parameter “as_user_id” names a user that the caller may not act for."),
        _("The detail in the log says why."),
    ),
    Reason.AS_USER_ID_UNKNOWN: Explanation(
        _("The parameter “as_user_id” names no active user."),
        _("Send the primary key of an active user, or “uuid:” and their uuid."),
    ),
    Reason.AS_USER_ID_NOT_ALLOWED: Explanation(
        _("The caller may not get tokens for this user."),
        _(
            "Give the caller the permission instaccess.masquerade. The user must hold no permission that "
            "the caller lacks."
        ),
    ),
    Reason.THROTTLED: Explanation(
        _("The access token asked for tokens too often."),
        _("The client must wait as long as Retry-After says, and use each token until it expires."),
    ),
    Reason.METHOD: Explanation(
        _("The request used a method other than POST."),
        _("Send POST."),
    ),
    Reason.BAD_REQUEST: Explanation(
        _("Django refused the request, for example because of its Host header."),
        _("Compare the host with ALLOWED_HOSTS, and look at what the proxy sends."),
    ),
    Reason.SERVICE_SECRET: Explanation(
        _("A gateway asked for the revocation list with no secret or with an unknown one."),
        _("The first of the gateway's INSTACCESS['SERVICE_SECRETS'] must be one of the issuer's."),
    ),
    Reason.NO_KEY: Explanation(
        _("There is no key to decide it with. That is a fault of this deployment, not of the token."),
        _("The detail names the command that makes keys. Until then every request gets a 503."),
    ),
    Reason.SOURCE_UNAVAILABLE: Explanation(
        _("Keys or the deny list can't be read from their server, and what is known of them is too old."),
        _("See that this machine reaches the address in the detail. Until then every request gets a 503."),
    ),
    Reason.UNSEAL: Explanation(
        _("A private key does not open. That is a fault of this deployment, not of the token."),
        _("Put the right key-encryption key back: see INSTACCESS['KEY_ENCRYPTION_KEYS'] and SECRET_KEY_FALLBACKS."),
    ),
    Reason.KEK_MISSING: Explanation(
        _("Its private key was sealed under a key-encryption key that is not configured. That is a fault of ours."),
        _("Put the key-encryption key back: see INSTACCESS['KEY_ENCRYPTION_KEYS'], or SECRET_KEY_FALLBACKS."),
    ),
    Reason.SEAL_BROKEN: Explanation(
        _("Its private key does not open though the key-encryption key is the right one: its row was altered."),
        _("Restore the row from a backup. Until then every request under this key gets a 503."),
    ),
    Reason.AUDIT: Explanation(
        _("The audit row could not be written, so no token was issued."),
        _("The detail in the log names the database error."),
    ),
    Reason.AUDIT_ALTERED: Explanation(
        _("Something in the audit log was modified."),
        _("Run `python manage.py instaccess_tokens verify`: it names the row."),
    ),
    Reason.CONFIG: Explanation(
        _("A setting is missing or bad. That is a fault of this deployment, not of the token."),
        _("Run `python manage.py check`: it names the setting and what it takes."),
    ),
    Reason.CLAIMS_TOO_LARGE: Explanation(
        _("The claims do not fit into the response headers of a gateway."),
        _("Let INSTACCESS['CLAIMS_HOOK'] return less."),
    ),
    Reason.CLAIMS_NOT_JSON: Explanation(
        _("A claim that INSTACCESS['CLAIMS_HOOK'] returned is not JSON."),
        _("Let the hook return strings, numbers, booleans, lists and dictionaries."),
    ),
    Reason.KEY_REFUSED: Explanation(
        _("The key cannot be used."),
        _("The detail says why, and which command makes a usable key."),
    ),
    Reason.FAULT: Explanation(
        _("Something failed here. That is a fault of this deployment, not of the token."),
        _("The log says what. A gateway in this state answers 503 and lets nothing through."),
    ),
    Reason.ERROR: Explanation(
        _("Something failed."),
        _("The detail in the log says what."),
    ),
    Reason.OTHER: Explanation(
        _("An extension of this project gave a reason of its own."),
        _("The log has the reason."),
    ),
}
"""What each reason means. Complete: a test compares it with `Reason`."""


class Variant(StrEnum):
    """What is known beyond a reason: where the key of the token is."""

    REVOKED = "revoked"
    GONE = "gone"
    ELSEWHERE = "elsewhere"


DETAILED: Mapping[tuple[Reason, Variant], Explanation] = {
    (Reason.UNKNOWN_KID, Variant.REVOKED): Explanation(
        _("It is under a key that was revoked: every token under it is refused, and nothing it says is certain."),
        _("The client needs a new token. Whoever has the stolen key can still make tokens like this one."),
    ),
    (Reason.UNKNOWN_KID, Variant.GONE): Explanation(
        _("It is under a key that retired so long ago that every token under it has expired."),
        _("The client keeps its token for too long: it must get a new one before an hour has passed."),
    ),
    (Reason.UNKNOWN_KID, Variant.ELSEWHERE): Explanation(
        _("Only the public half of its encryption key is held here: nothing but the gateway can open it."),
        _("Inspect it where the gateway keeps its keys, or paste the signed token that is handed on to services."),
    ),
    (Reason.NO_KEY, Variant.ELSEWHERE): Explanation(
        _("No private encryption key is held here: nothing but the gateway can open it."),
        _("Inspect it where the gateway keeps its keys, or paste the signed token that is handed on to services."),
    ),
}

ACCEPTED_BY_GATEWAY = Explanation(
    _("The gateway lets this token through and hands the signed token inside to the service."),
    _("If requests with it fail all the same, look at the service: its log names the reason."),
)
ACCEPTED_BY_SERVICE = Explanation(
    _("A service accepts this signed token. It is what the gateway hands on, and it asks no deny list."),
    _(
        "It belongs between the gateway and the services only. If it was seen anywhere else, revoke it and find "
        "out how it got there."
    ),
)


def explain(reason: Reason, variant: Variant | None = None) -> Explanation:
    """What a reason means; the variant's own explanation where it has one."""
    if variant is not None and (detailed := DETAILED.get((reason, variant))):
        return detailed
    return EXPLANATIONS.get(reason, EXPLANATIONS[Reason.INVALID])
