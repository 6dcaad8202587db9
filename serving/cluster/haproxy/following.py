"""Keeps HAProxy's map of routes current: a script in HAProxy asks the front, and writes what it is told to a file.

The front answers at once if it has something new, and after some seconds if it has not; so a change reaches every
HAProxy as soon as the front knows it. The script runs in every process of HAProxy, also in one that has been replaced
and still has connections. While the front does not answer, the last routes stay in force. A new process begins with the
file, which the command brings up to date before it becomes HAProxy. What a file says under another secret is of another
server, and forgotten. Imports nothing heavy, as `command.py`. docs/decisions/0023 says why this way.
"""

import re
import socket
from pathlib import Path

from serving.names import FRONT, ROUTES_PAGE

TABLE = "headway-routes.map"
SCRIPT = "headway-routes.lua"
TOKEN = "HEADWAY_OWN_TOKEN"  # an environment variable of HAProxy: what the script shows to the front
PATIENCE_S = 0.3  # of the command, which delays a change of HAProxy
LAST = "# end"  # the last line of a whole answer
_FRONTS = re.compile(rf"^backend http-{FRONT}\n(?:[ \t#].*\n|\n)*", re.MULTILINE)
_SERVER = re.compile(r"^ *server \S+ (\S+):(\d+)(?! .*backup)", re.MULTILINE)

# `know`: what the map holds, by model. An answer that is cut off, or no list of routes, is ignored.
_LUA = """\
local path, mark, servers = "{path}", "{mark}", {{{servers}}}
local known = {{}}

local function read(text)
    local found = {{}}
    for line in text:gmatch("[^\\n]+") do
        local model, value = line:match("^([^#%s]%S*) (%S+)$")
        if model then found[model] = value end
    end
    return found
end

local function is_stopping()
    return tostring(core.get_info()["Stopping"]) == "1"
end

local function ask(server)
    local front = core.tcp()
    front:settimeout(8)
    if not front:connect(server[1], server[2]) then return nil end
    local version = known.version or ""
    if is_stopping() then version = "" end
    front:send("GET {page}?known=" .. version .. " HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\nAuthorization: Bearer "
        .. (os.getenv("{token}") or "") .. "\\r\\n\\r\\n")
    local answer = front:receive("*a")
    front:close()
    local body = answer and answer:match("^HTTP/1.%d 200 .-\\r\\n\\r\\n(.*{last}\\n)$")
    return body
end

local function write(body)
    local file = io.open(path .. ".new", "w")
    if not file then return end
    file:write(mark .. "\\n" .. body)
    file:close()
    os.rename(path .. ".new", path)
end

local function apply(body)
    local told, version = read(body), body:match("^# (%S+)\\n")
    if version == known.version then return end
    for model, value in pairs(told) do core.set_map(path, model, value) end
    for model in pairs(known.routes or {{}}) do
        if not told[model] then core.del_map(path, model) end
    end
    known = {{version = version, routes = told}}
    write(body)
end

core.register_task(function()
    local file = io.open(path)
    if file then
        known.routes = read(file:read("a"))
        file:close()
    end
    while true do
        local body
        for _, server in ipairs(servers) do body = body or ask(server) end
        if body then apply(body) end
        core.msleep((body and not is_stopping()) and 20 or 500)
    end
end)
"""


def fronts(config: str) -> list[tuple[str, int]]:
    """Returns the addresses of the front's replicas in Ray's configuration."""
    backend = _FRONTS.search(config)
    return [(host, int(port)) for host, port in _SERVER.findall(backend[0])] if backend else []


def script(table: str, mark: str, servers: list[tuple[str, int]]) -> str:
    """Returns the script. table: the path of the map's file. mark: its first line. servers: replicas of the front."""
    listed = ", ".join(f'{{"{host}", {port}}}' for host, port in servers)
    return _LUA.format(path=table, mark=mark, servers=listed, page=ROUTES_PAGE, token=TOKEN, last=LAST)


def mark_of(secret: bytes) -> str:
    """Returns the first line of the files of one server. secret: derived from the server's."""
    return f"# {secret.decode()}"


def bring_up_to_date(table: Path, mark: str, servers: list[tuple[str, int]], token: str) -> None:
    """Writes the routes that the front tells to the file. If it does not answer in time, leaves those of this server as
    they are, and forgets those of another."""
    told = next((body for body in (_asked(server, token) for server in servers) if body), None)
    if told is None:
        try:
            told = table.read_text().partition(f"{mark}\n")[2]
        except OSError:
            told = ""
    new = table.with_name(f"{table.name}.new")
    new.write_text(f"{mark}\n{told}")
    new.replace(table)


def _asked(server: tuple[str, int], token: str) -> str | None:
    """Returns what this replica of the front answers; None if it does not, or not with routes."""
    try:
        with socket.create_connection(server, PATIENCE_S) as front:
            front.settimeout(PATIENCE_S)
            asked = f"GET {ROUTES_PAGE} HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
            front.sendall(asked.encode())
            answer = b""
            while more := front.recv(65536):
                answer += more
    except OSError:
        return None
    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    is_whole = head.split(" ", 2)[1:2] == ["200"] and body.endswith(f"{LAST}\n")
    return body if is_whole else None
