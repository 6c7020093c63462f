"""The inspector in the admin: paste a token and read why it is accepted or refused."""
