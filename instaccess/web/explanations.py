"""Explanations of the reason codes, for operators: what each code means and what to do.

The explanations are never sent to clients, which get a uniform response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.translation import gettext_lazy as _

from ..exceptions import Reason


class Explanation(NamedTuple):
    """The meaning of a reason code, and advice for operators. Both texts are lazily translated."""

    meaning: Any
    advice: Any


EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.NO_CREDENTIALS: Explanation(
        _("There is no token."),
        _("Make the client send the token in the Authorization header. In the token inspector, paste the token."),
    ),
    Reason.MALFORMED_HEADER: Explanation(
        _("The Authorization header does not contain exactly one bearer token."),
        _("Send one header that contains “Bearer”, a space and the token, and nothing else."),
    ),
    Reason.MALFORMED: Explanation(
        _(
            "The token is malformed: characters are missing or were added, the token was encoded twice, or its "
            "content is not strict JSON."
        ),
        _(
            "Copy the complete token again. If a client sends the token in this form, find out whether the client "
            "or a proxy modifies the token."
        ),
    ),
    Reason.TOO_LONG: Explanation(
        _("The token is longer than any InstAccess token, so it was not parsed."),
        _("Paste a single token. If the pasted text is a single token, another issuer created the token."),
    ),
    Reason.BAD_HEADER: Explanation(
        _(
            "The header has a member that is not accepted, such as “zip”, “crit” or “jwk”, or a member that is not a "
            "string. The token was refused before any key was used."
        ),
        _(
            "This deployment's issuer never issues such tokens. Find the source of the token, because the token can "
            "be part of an attack."
        ),
    ),
    Reason.WRONG_ALG: Explanation(
        _("The token uses an algorithm that is not accepted."),
        _(
            "To accept RSA1_5 tokens from Canvas, set INSTACCESS['ENCRYPTION_ALG'] to RSA1_5. If the token uses "
            "another algorithm, such as “none” or HS256, find the source of the token, because the token can be "
            "part of an attack."
        ),
    ),
    Reason.WRONG_TYPE: Explanation(
        _(
            "The header has a “typ” or a “cty” that InstAccess tokens never have, so the token is not an InstAccess "
            "token."
        ),
        _(
            "Paste an InstAccess token. Audit checkpoints, for example, are signed with the same key as tokens, but "
            "are not tokens."
        ),
    ),
    Reason.DECRYPT_FAILED: Explanation(
        _("No key decrypts the token: the token was damaged, modified, or encrypted for another deployment."),
        _(
            "If the header contains no key id, only the three newest keys were tried. Copy the complete token again. "
            "If the error remains, find the deployment for which the token was encrypted."
        ),
    ),
    Reason.UNKNOWN_KID: Explanation(
        _("The token is signed or encrypted with a key that is not available on this server."),
        _(
            "Compare the key id of the token with the ids of the keys on this server. If no id matches, the token is "
            "forged or comes from another deployment, or this server has not received a new key yet."
        ),
    ),
    Reason.BAD_SIGNATURE: Explanation(
        _(
            "The signature does not match the key whose id is in the header: the token was modified, forged or "
            "damaged."
        ),
        _(
            "Do not trust the content of the token. Copy the complete token again. If the error remains, find out "
            "who created the token."
        ),
    ),
    Reason.BAD_CLAIM: Explanation(
        _("A required claim is missing, or the value of a claim is not allowed."),
        _(
            "Read the name of the claim in the detail. If another program signs with this deployment's key, correct "
            "the program."
        ),
    ),
    Reason.BAD_LIFETIME: Explanation(
        _("The lifetime of the token is longer than an hour or shorter than one second."),
        _("This deployment's issuer never issues such tokens. Find out which other program signs with the same key."),
    ),
    Reason.NOT_YET: Explanation(
        _("The token is not valid yet, because its “iat” or its “nbf” is in the future."),
        _("Compare the clocks of the issuer and of this server."),
    ),
    Reason.INVALID: Explanation(_("The token is refused."), _("Read the reason in the detail.")),
    Reason.FOREIGN_ISSUER: Explanation(
        _("The token is from another issuer: its “iss” is not in INSTACCESS['ACCEPTED_ISSUERS']."),
        _(
            "If this server should accept the token, add its “iss” to INSTACCESS['ACCEPTED_ISSUERS']. If the setting "
            "is not set, set it to a list of INSTACCESS['ISSUER'] and this “iss”."
        ),
    ),
    Reason.EXPIRED: Explanation(
        _("The token was valid and has expired."),
        _("Make the client get a new token. An InstAccess token is valid for at most one hour."),
    ),
    Reason.REVOKED: Explanation(
        _("The token was revoked, or all tokens of its user, its account or its key were revoked."),
        _(
            "Look up the audit row of the token, which shows who revoked the token and why. If the client is still "
            "allowed to have access, make the client get a new token."
        ),
    ),
    Reason.ALREADY_DECRYPTED: Explanation(
        _("The token is a signed token that is not encrypted. The gateway refuses signed tokens from clients."),
        _(
            "Make the client send the encrypted token that the issuer returned. Find out how the client got the "
            "signed token."
        ),
    ),
    Reason.OTHER_BEARER: Explanation(
        _("The bearer token is not an InstAccess token. The app neither looks up nor shows such tokens."),
        _(
            "Exchange an OAuth2 access token for an InstAccess token: POST /api/v1/inst_access_tokens. If an "
            "InstAccess token gets this reason, the token is incomplete: copy the complete token again."
        ),
    ),
    Reason.STILL_ENCRYPTED: Explanation(
        _("A service received the encrypted token."),
        _("Send the request through the gateway, which decrypts the token."),
    ),
    Reason.UNKNOWN_USER: Explanation(
        _("The user of the token is unknown on this server or inactive, so a service refuses the token."),
        _("Look up the user by the uuid in “sub”."),
    ),
    Reason.UNKNOWN_MASQUERADER: Explanation(
        _("The real user of the masquerade is unknown on this server or inactive, so a service refuses the token."),
        _("Look up the real user by the uuid in “masq_sub”."),
    ),
    Reason.WRONG_ACCOUNT: Explanation(
        _("The token belongs to a different account than the service, so the service refuses the token."),
        _("Compare “acct” with INSTACCESS['ACCOUNT_UUID'], or with the value that the ACCOUNT_HOOK returns."),
    ),
    Reason.UNUSABLE_CLIENT: Explanation(
        _("The application of the token was deleted or is unusable, so a service refuses the token."),
        _(
            "Look up the application by “client_id”. If another issuer with the same “iss”, such as Canvas, issued "
            "the token, set INSTACCESS['ISSUER'] to a different value, and list that value and the “iss” of the "
            "token in INSTACCESS['ACCEPTED_ISSUERS']."
        ),
    ),
    Reason.JWT_FROM_JWT: Explanation(
        _(
            "The caller authenticated with an InstAccess token. An InstAccess token cannot be exchanged for another "
            "InstAccess token."
        ),
        _("Send the OAuth2 access token to the issuing endpoint."),
    ),
    Reason.BROKEN_JWT: Explanation(
        _("The issuing endpoint received a signed InstAccess token that is expired, forged or damaged."),
        _("Send the OAuth2 access token instead. If the error is frequent, find out which client sends such tokens."),
    ),
    Reason.UNKNOWN_TOKEN: Explanation(
        _("The OAuth2 access token does not exist or was revoked."),
        _("Make the client get a new access token."),
    ),
    Reason.NO_USER: Explanation(
        _("The OAuth2 access token has no user, and its application has no service user."),
        _("Bind the application to a service user in the admin, or use a grant that involves a user."),
    ),
    Reason.NO_APPLICATION: Explanation(
        _("The OAuth2 access token has no application."),
        _("Register the application again, and let the client get a new access token."),
    ),
    Reason.INACTIVE_USER: Explanation(
        _("The user of the OAuth2 access token is inactive."),
        _("Activate the user if they should have access."),
    ),
    Reason.REFUSED_BY_VALIDATOR: Explanation(
        _(
            "The OAuth2 validator refused the access token. Either the access token is restricted to another "
            "resource, or the application of the access token is unusable."
        ),
        _('Check the validator in OAUTH2_PROVIDER["OAUTH2_VALIDATOR_CLASS"], and check the application.'),
    ),
    Reason.INSUFFICIENT_SCOPE: Explanation(
        _("The OAuth2 access token lacks the scope that the issuing endpoint requires."),
        _("Make the client get a new access token with the scope url:POST|/api/v1/inst_access_tokens."),
    ),
    Reason.AS_USER_ID: Explanation(
        _("The caller isn't allowed to get tokens for the user with the id in “as_user_id”."),
        _("Read the reason in the detail of the log line."),
    ),
    Reason.AS_USER_ID_UNKNOWN: Explanation(
        _("There is no active user with the id in “as_user_id”."),
        _("Send the primary key of an active user, or “uuid:” followed by the uuid of the user."),
    ),
    Reason.AS_USER_ID_NOT_ALLOWED: Explanation(
        _("The caller isn't allowed to get tokens for this user."),
        _("Give the caller the permission instaccess.masquerade and every permission of the user."),
    ),
    Reason.THROTTLED: Explanation(
        _("Too many tokens were requested with the same access token."),
        _(
            "Make the client reuse each token until the token expires. If the response contains Retry-After, make "
            "the client wait for this number of seconds."
        ),
    ),
    Reason.METHOD: Explanation(
        _("The request used a method other than POST."),
        _("Send a POST request."),
    ),
    Reason.BAD_REQUEST: Explanation(
        _("Django refused the request, for example because of its Host header."),
        _("Compare the host with ALLOWED_HOSTS, and check the headers that the proxy sends."),
    ),
    Reason.SERVICE_SECRET: Explanation(
        _("A gateway requested the revocation list without a secret or with an unknown secret."),
        _("Add the first secret in the gateway's INSTACCESS['SERVICE_SECRETS'] to the issuer's SERVICE_SECRETS."),
    ),
    Reason.NO_KEY: Explanation(
        _("A required key is missing. This is a server-side error, not a problem with the token."),
        _("Run the command in the detail. Every request gets a 503 until the key exists."),
    ),
    Reason.SOURCE_UNAVAILABLE: Explanation(
        _("Keys or the deny list can't be read from their source, and no usable copy is cached."),
        _(
            "Ensure that this server can reach the address in the detail. Every request gets a 503 until the address "
            "can be reached."
        ),
    ),
    Reason.UNSEAL: Explanation(
        _("A private key can't be decrypted. This is a server-side error, not a problem with the token."),
        _(
            "Add the key-encryption key to INSTACCESS['KEY_ENCRYPTION_KEYS'] again. If the key-encryption key was "
            "derived from SECRET_KEY, add “SECRET_KEY” to KEY_ENCRYPTION_KEYS instead. If SECRET_KEY was replaced, "
            "also add the old SECRET_KEY to SECRET_KEY_FALLBACKS."
        ),
    ),
    Reason.KEK_MISSING: Explanation(
        _(
            "A key is encrypted or authenticated with a key-encryption key that is not configured. This is a "
            "server-side error."
        ),
        _(
            "Add the key-encryption key to INSTACCESS['KEY_ENCRYPTION_KEYS'] again. If the key-encryption key was "
            "derived from SECRET_KEY, add “SECRET_KEY” to KEY_ENCRYPTION_KEYS instead. If SECRET_KEY was replaced, "
            "also add the old SECRET_KEY to SECRET_KEY_FALLBACKS."
        ),
    ),
    Reason.SEAL_BROKEN: Explanation(
        _(
            "The row of the private key was modified, so the private key can't be decrypted. The key-encryption key "
            "of the row is configured."
        ),
        _(
            "Restore the row from a backup. Every request with a token of this key gets a 503 until the row is "
            "restored."
        ),
    ),
    Reason.KEY_ALTERED: Explanation(
        _("The row of a key was modified or inserted without this app, so the key is not used."),
        _(
            "Run `python manage.py check --database default`, which reports the row and the command that fixes the "
            "problem. Find out who modified the database."
        ),
    ),
    Reason.AUDIT: Explanation(
        _("The audit row could not be written, so no token was issued."),
        _("Read the database error in the detail of the log line."),
    ),
    Reason.AUDIT_ALTERED: Explanation(
        _("The audit log was modified."),
        _("Run `python manage.py instaccess_tokens verify`, which reports the modified row."),
    ),
    Reason.CONFIG: Explanation(
        _("A setting is missing or invalid. This is a server-side error, not a problem with the token."),
        _("Run `python manage.py check`, which reports the setting and its accepted values."),
    ),
    Reason.CLAIMS_TOO_LARGE: Explanation(
        _("The claims do not fit into the response headers of a gateway."),
        _("Change INSTACCESS['CLAIMS_HOOK'] to return fewer or shorter claims."),
    ),
    Reason.CLAIMS_NOT_JSON: Explanation(
        _("INSTACCESS['CLAIMS_HOOK'] returned a claim that can't be encoded as JSON."),
        _("Change the hook to return only strings, numbers, booleans, None, lists and dictionaries."),
    ),
    Reason.KEY_REFUSED: Explanation(
        _("The key can't be used."),
        _("Read the reason in the detail. Correct the problem, or use another key."),
    ),
    Reason.FAULT: Explanation(
        _("An unexpected error occurred. This is a server-side error, not a problem with the token."),
        _("Read the error in the log. Requests that cause the error get a 503 until the error is fixed."),
    ),
    Reason.ERROR: Explanation(
        _("An error without a more precise reason code occurred."),
        _("Read the description of the error in the log."),
    ),
    Reason.OTHER: Explanation(
        _("A hook of this project raised an error with its own reason code."),
        _("Read the reason code in the log, and look up the code in the hook."),
    ),
}
"""A mapping from each member of `Reason` to the explanation. A test fails if a member has no explanation."""
