"""What a sweep came to, read from its storage; and the files that say it."""

import logging
from pathlib import Path
from typing import Any

from mlpcli.config import Sweep, SweepPlan
from mlpcli.sweeping import directory
from mlpcli.sweeping.reading import record_of
from mlpcli.sweeping.record import SweepResult
from mlpcli.sweeping.storing import quiet
from mlpcli.sweeping.study import Trials, less_is_better_for
from mlpcli.sweeping.text import as_csv, ranked

log = logging.getLogger("mlpcli")

ENOUGH = 4
"""Complete trials from which importances mean anything."""


def plain_space(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The space as the config states it."""
    return {key: each.model_dump(exclude_defaults=True) for key, each in sweep.space.items()}


def gathered(trials: Trials, path: Path, importances: bool = False) -> SweepResult:
    """All that is known of a sweep now; its importances too, which take a moment, where they are asked for."""
    sweep = trials.sweep
    objective = str(sweep.objective)
    result = SweepResult(
        name=trials.place.study,
        objective=objective,
        less_is_better=less_is_better_for(objective),
        space=plain_space(sweep),
        sampler=sweep.sampler,
        pruner=sweep.pruner,
        trials=[record_of(sweep, index, trial, path) for index, trial in trials.all().items()],
        importances={},
    )
    if importances and len(ranked(result)) >= ENOUGH:
        result.importances.update(_importances(trials))
    return result


def _importances(trials: Trials) -> dict[str, float]:
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    try:
        with quiet():
            evaluator = FanovaImportanceEvaluator(seed=0)
            return {
                key: float(share)
                for key, share in get_param_importances(trials.study, evaluator=evaluator).items()
            }
    except (ValueError, RuntimeError) as error:  # all values alike, for one
        log.debug("no importances: %s", error)
        return {}


def write(path: Path, result: SweepResult, plan: SweepPlan) -> None:
    """Write trials.csv, best.yaml and sweep.html into the sweep's directory.

    Raises:
        StorageError: one of them could not be written.
    """
    from mlpcli.config import dump_config
    from mlpcli.runs import CONFIG
    from mlpcli.sweeping.page import sweep_page
    from mlpcli.sweeping.worker import configured

    with directory.writing(path):
        directory.write(path, directory.TABLE, as_csv(result))
        best = ranked(result)
        if best:
            run = None if best[0].run is None else path / best[0].run / CONFIG
            there = run is not None and run.is_file()
            text = (
                run.read_text(encoding="utf-8")
                if run and there
                else dump_config(configured(plan, best[0].parameters))
            )
            directory.write(path, directory.BEST, text)
        directory.write(path, directory.PAGE, sweep_page(result))
