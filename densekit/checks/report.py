"""What a run of the suite found, and what it would have found."""

from collections.abc import Mapping
from dataclasses import dataclass

from densekit.checks.power import Finding


@dataclass(frozen=True)
class Report:
    """A run in which every check passed.

    Examples
    --------
    >>> from densekit.checks.power import finding
    >>> found = finding("mass in 3 columns, less one", 0.001, 0.0005, 100_000)
    >>> print(Report("Mine", "standard", 1, 1e-8, {"mass_is_one": (found,)}))
    Mine passes 1 checks with effort='standard'.
    A correct estimator fails one of them in 1e-08 of runs at most.
      mass_is_one
        mass in 3 columns, less one: +0.001 of 100000 (smallest seen with 99 % power 0.004)
    """

    name: str
    effort: str
    n_checks: int
    chance: float
    """How often, at most, a correct estimator fails any of the checks: the sum over the run."""
    findings: Mapping[str, tuple[Finding, ...]]
    """By the name of the check."""

    def smallest(self, defect: str) -> float:
        """The smallest defect seen with 99 % power, among those whose description begins with
        ``defect``, in the worst column; ValueError where there is none."""
        sizes = [
            f.smallest for found in self.findings.values() for f in found
            if f.what.startswith(defect) and f.smallest
        ]  # fmt: skip
        if not sizes:
            raise ValueError(f"no check of this run looked for {defect!r}")
        return max(sizes)

    def __str__(self) -> str:
        lines = [
            f"{self.name} passes {self.n_checks} checks with effort={self.effort!r}.",
            f"A correct estimator fails one of them in {self.chance:.1g} of runs at most.",
        ]
        for check, found in self.findings.items():
            if found:
                lines.append(f"  {check}")
                lines += [f"    {one}" for one in found]
        return "\n".join(lines)
