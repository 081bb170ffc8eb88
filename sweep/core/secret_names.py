"""Names of keys and variables that hold secrets, and similar names that do not."""

from __future__ import annotations

import re
from functools import lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ANYWHERE = _words("webhook dsn cookie jwt")  # the rest of such a name tells the kind
_LAST = _words(
    """
    secret secrets password passwords passwd passwds passphrase passphrases passcode pwd pswd pgpassword credential
    credentials creds apikey apikeys accesskey secretkey privatekey auth authorization bearer pat
    """
)
# Names with `key` as last word: what stands before it makes it a secret.
_KEYS = _words(
    """
    api access private secret signing signature encryption account storage master license ssh rsa pgp gpg app fernet
    kaggle service client admin server session hmac deploy ssl tls subscription auth shared openai anthropic stripe
    sendgrid mailgun azure aws gcp s3 wandb comet hf huggingface cohere datadog
    """
)
_NO_KEYS = _words("sort primary foreign cache partition public group dict row index hash lookup by per")
_PASSES = _words("db smtp mail email user root admin redis pg postgres mysql mongo ssh ftp http proxy ldap")
# Tokens of a vocabulary. `tokens` is a number, unless the owner of a credential stands before it.
_NO_TOKENS = _words(
    """
    pad eos bos unk sep cls mask next previous prev first last stop start end image audio video special new per by
    each word prompt prefix begin generated extra think decoder boi eoi eot fill sentinel separator input output max
    min n num total
    """
)
_TOKENS = _words("hub api auth access")
_FOLDERS = frozenset({"PWD", "OLDPWD"})  # in every shell
_KINDS = frozenset({"id", "ids", "file", "path", "dir", "name", "names", "len", "length", "count", "type", "size"})


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether the name of a key or variable looks like the name of a secret."""
    if name in _FOLDERS:
        return False
    words = [word.lower() for word in _WORD.findall(name) if not word.isdigit()]
    if not words or words[-1] in _KINDS:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _LAST or _ANYWHERE & set(words):
        return True
    in_capitals = name.isupper()  # as variables of the environment are
    if last in ("key", "keys"):
        return before in _KEYS or (in_capitals and last == "key" and bool(before) and before not in _NO_KEYS)
    if last == "pass":
        return before in _PASSES or (in_capitals and bool(before))
    if last == "token":
        return before not in _NO_TOKENS
    if last == "tokens":
        return before in _TOKENS
    return any(last.endswith(end) for end in ("token", "secret", "password", "passwd", "apikey"))
