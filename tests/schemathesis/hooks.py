"""What schemathesis cannot know: a key stands for one change, a token must not end itself, and a
default branch is not deleted."""

import itertools
import os

import schemathesis

keys = itertools.count()
KEPT = os.environ["HOWDAH_KEPT_TOKENS"].split()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Gives each request with a key that fits one of its own, as clients do, and keeps the tokens in use."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 255 and all("!" <= letter <= "~" for letter in key):
        case.headers["Idempotency-Key"] = f"change-{next(keys)}"
    token = str((case.path_parameters or {}).get("serviceTokenId"))
    if case.method == "DELETE" and any(kept.endswith(token) for kept in KEPT):
        case.path_parameters["serviceTokenId"] = os.environ["HOWDAH_SPARE_TOKEN"]
    # It remembers the branch that lists begin with, which is the default one.
    if case.method == "DELETE" and str((case.path_parameters or {}).get("branchId")).startswith("br_"):
        case.path_parameters["branchId"] = os.environ["HOWDAH_BRANCH"]
