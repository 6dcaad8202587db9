"""The parameters of a run, as one value that can be sent to other processes and written into a result."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.arrivals import ARRIVALS
from loadtest.distribution import Distribution
from loadtest.loading import load
from loadtest.scenario import Scenario
from loadtest.scenario_file import from_table
from loadtest.spec import BadSpec, parse
from loadtest.wires import WIRES, Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of one run. With `users` 0, an open loop at `rate` requests per second; else a closed loop of this many
    users.

    `scenario`: a file, or the table of a scenario file. `within_ms`: later answers do not count as goodput, unless
    their task has a deadline of its own; None: every answer counts."""

    url: str
    scenario: Path | Mapping[str, Any]
    wire: str = "http-binary"
    rate: float = 0.0
    seconds: float = 10.0
    arrivals: str = "poisson"
    users: int = 0
    think: str = "0"
    within_ms: float | None = None
    seed: int = 0
    in_flight: int = 256
    timeout_s: float = 10.0
    tenant_header: str = "x-tenant"
    processes: int = 1

    def __post_init__(self) -> None:
        Address.parse(self.url)
        Distribution.parse(self.think, "think")
        if self.wire not in WIRES:
            raise BadSpec(f"wire: expected one of {', '.join(WIRES)}, got {self.wire!r}")
        kind = parse(self.arrivals, "arrivals").name
        if kind not in ARRIVALS:
            raise BadSpec(f"arrivals: no such kind {kind!r}; there are {', '.join(sorted(ARRIVALS))}")
        if not self.users and kind != "replay" and not self.rate > 0:
            raise BadSpec(f"rate: must be positive, got {self.rate:g}; for a closed loop, give users instead")
        for name in ("seconds", "in_flight", "timeout_s", "processes"):
            if not getattr(self, name) > 0:
                raise BadSpec(f"{name}: must be positive, got {getattr(self, name)}")
        if self.users < 0 or (self.within_ms is not None and self.within_ms <= 0):
            raise BadSpec("users and within_ms must not be negative")

    @property
    def address(self) -> Address:
        return Address.parse(self.url)

    @property
    def within_ns(self) -> int | None:
        return None if self.within_ms is None else round(self.within_ms * 1e6)

    def read_scenario(self) -> type[Scenario]:
        """Reads the scenario. Raises BadSpec."""
        return load(self.scenario) if isinstance(self.scenario, Path) else from_table(self.scenario, "command line")

    @property
    def title(self) -> str:
        """A description of the load in one line."""
        if self.users:
            how = f"{self.users} users thinking {self.think} s"
        else:
            how = self.arrivals + ("" if self.arrivals.startswith("replay") else f", {self.rate:g} per second")
        within = f", good within {self.within_ms:g} ms" if self.within_ms is not None else ""
        return f"{how} for {self.seconds:g} s over {self.wire}, seed {self.seed}{within}"

    def as_json(self) -> dict[str, Any]:
        scenario = str(self.scenario) if isinstance(self.scenario, Path) else dict(self.scenario)
        return {**asdict(self), "scenario": scenario}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Load":
        scenario = fields["scenario"]
        return cls(**{**fields, "scenario": Path(scenario) if isinstance(scenario, str) else scenario})
