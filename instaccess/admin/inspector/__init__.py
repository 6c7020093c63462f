"""The inspector in the admin: users paste a token and read why the token is accepted or refused."""
