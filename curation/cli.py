"""The command line: ``curation run``, ``export``, ``explain``, ``history`` and so on."""

from __future__ import annotations

import click

from curation import __version__
from curation.commands import chosen, datasets, past, run, upkeep
from curation.threads import set_defaults


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Choose, weight and certify the rows a model should be trained on.

    A data set is one YAML file, curation/defs/NAME/defs.yaml. What a run leaves behind lies in
    data/ (or in CURATION_STORE); Dagster's run history in data/.dagster (or in DAGSTER_HOME).
    """
    set_defaults()


for command in (
    run.run,
    datasets.check,
    datasets.list_datasets,
    datasets.ui,
    chosen.export,
    chosen.explain,
    chosen.report,
    past.history,
    past.diff,
    upkeep.status,
    upkeep.quarantine,
    upkeep.prune,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
