"""The Lua scripts of the routing store, and the same as a library of functions.

A script is sent by its hash, and whole where the server does not know it (a restart, a failover). A user who may not
send scripts calls the functions instead, which an administrator loads once: the server keeps them with its data.

    python -m gateway.routing.store.store_script | redis-cli -x FUNCTION LOAD REPLACE
"""

import hashlib
import sys
from importlib.resources import files


def _source(name: str) -> str:
    return files("gateway.routing.store").joinpath(name).read_text("utf-8")


class Script:
    """One script: its text, its hash, and the name of the function with the same text.

    One that changes something begins with the functions by which changes are recorded (chain.lua).
    """

    def __init__(self, name: str, *, reads_only: bool = False) -> None:
        self.name = name.removesuffix(".lua")
        shebang, _, body = _source(name).partition("\n")
        self.text = f"{shebang}\n{'' if reads_only else _source('chain.lua')}{body}"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.suffix = "_RO" if reads_only else ""

    @property
    def function(self) -> str:
        return f"gateway_{self.name}_{RELEASE}"

    def registration(self) -> str:
        """The Lua statement that makes it a function of the library."""
        shebang, _, body = self.text.partition("\n")
        assert shebang.startswith("#!lua")
        flags = "'no-writes'" if self.suffix else ""
        return (
            f"redis.register_function{{function_name='{self.function}', flags={{{flags}}}, "
            f"callback=function(KEYS, ARGV)\n{body}\nend}}\n"
        )


COMMIT = Script("commit.lua")
SNAPSHOT = Script("snapshot.lua", reads_only=True)
HEAL = Script("heal.lua")
DRAFT = Script("draft.lua")
AUDIT = Script("audit.lua")
ROLLOUT = Script("rollout.lua")
ALL = (COMMIT, SNAPSHOT, HEAL, DRAFT, AUDIT, ROLLOUT)


# In the library's name and in its functions', so that the libraries of several releases can be loaded at a time.
RELEASE = hashlib.sha1("".join(script.sha for script in ALL).encode(), usedforsecurity=False).hexdigest()[:8]


def library() -> str:
    """The source of the library, for FUNCTION LOAD."""
    return "\n".join([f"#!lua name=gateway_{RELEASE}", *(script.registration() for script in ALL)])


if __name__ == "__main__":
    sys.stdout.write(library())
