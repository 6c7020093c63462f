"""The inspector in the admin: users paste a token and read why it is accepted or refused."""
