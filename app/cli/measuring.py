"""`adscent bench` and `adscent lab`: what measures, with JSON reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import Features, Html, Quick, Report, Seed, group

bench = group("Measure this machine, with a JSON report.", no_args_is_help=True)
lab = group("Try the learner where it might break, with a JSON report.", no_args_is_help=True)


@bench.command("train")
def bench_train(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Training: the kernel alone, and a chunk from the database to a published snapshot.

    Example: `adscent bench train --report train.json`
    """
    from jobs.bench.train import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("memory")
def bench_memory(report: Report = None, quick: Quick = False) -> None:
    """Memory: bytes of a feature value, ten million values, 500 chunks of turnover.

    Needs 8 GB of memory and 7 GB in the folder for temporary files (`TMPDIR`).

    Example: `adscent bench memory --report memory.json`
    """
    from jobs.bench.memory import run

    raise typer.Exit(run(report, quick))


@bench.command("certificate")
def bench_certificate(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """The certified range of scores: its time at 300,000 ads, and how tight it is.

    Example: `adscent bench certificate --report certificate.json`
    """
    from jobs.bench.certificate import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("targeting")
def bench_targeting(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Targeting: which of 300,000 ads with five rules each a request may see.

    Example: `adscent bench targeting --report targeting.json`
    """
    from jobs.bench.targeting import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("retrieval")
def bench_retrieval(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Retrieval: the best ads of up to three million, exactly, against flat scans of all.

    Example: `adscent bench retrieval --report retrieval.json`
    """
    from jobs.bench.retrieval import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("serve")
def bench_serve(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Serving: `/v1/score` against an endpoint that only decodes and answers.

    Example: `adscent bench serve --report serve.json`
    """
    from jobs.bench.serve import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("ingest")
def bench_ingest(
    report: Report = None,
    seed: Seed = 1,
    quick: Quick = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes.")] = 1,
) -> None:
    """Events: how many a second become durable, by the size of a request, against plain COPY.

    Example: `adscent bench ingest --report ingest.json`
    """
    from jobs.bench.ingest import run

    raise typer.Exit(run(report, seed, quick, workers))


@bench.command("soak")
def bench_soak(
    report: Report = None,
    seed: Seed = 1,
    quick: Quick = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.5, help="How long; 30 if not given, 1 with --quick.")
    ] = None,
) -> None:
    """A whole deployment at half of its capacity: memory, latency, every event exactly once.

    Ends with code 1 when an acknowledged event is lost or doubled, or an answer is wrong.

    Example: `adscent bench soak --minutes 30 --report soak.json`
    """
    from jobs.bench.soak import run

    raise typer.Exit(run(report, seed, minutes, quick))


@bench.command("statistics")
def bench_statistics(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Statistics: how many events a second are counted, against a GROUP BY that writes nothing.

    Example: `adscent bench statistics --report statistics.json`
    """
    from jobs.bench.statistics import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("import")
def bench_import(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Files: how many rows a second `adscent events import` stores, against plain COPY.

    Example: `adscent bench import --report import.json`
    """
    from jobs.bench.import_files import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("backlog")
def bench_backlog(
    report: Report = None,
    seed: Seed = 1,
    quick: Quick = False,
    rows: Annotated[int, typer.Option(min=1000, help="Impressions that wait.")] = 5_000_000,
) -> None:
    """Training data: how fast waiting impressions are read, and with how much memory.

    Needs some 350 bytes of disk for an impression: 18 GB and half an hour for 50 million.

    Example: `adscent bench backlog --rows 50000000 --report backlog.json`
    """
    from jobs.bench.backlog import run

    raise typer.Exit(run(report, seed, rows, quick))


@bench.command("swap")
def bench_swap(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """Snapshots of 300,000 ads exchanged under load, and how soon a worker starts.

    Example: `adscent bench swap --report swap.json`
    """
    from jobs.bench.swap import run

    raise typer.Exit(run(report, seed, quick))


@bench.command("pause")
def bench_pause(report: Report = None, seed: Seed = 1, quick: Quick = False) -> None:
    """The kill switch: how soon every worker has confirmed a pause, and whether it holds.

    Example: `adscent bench pause --report pause.json`
    """
    from jobs.bench.pause import run

    raise typer.Exit(run(report, seed, quick))


@lab.command("divergence")
def lab_divergence(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds of every regime.")] = 5,
    report: Report = None,
    html: Html = None,
    quick: Quick = False,
    tune: Annotated[bool, typer.Option(help="Search the methods' settings instead.")] = False,
) -> None:
    """Which ways of training diverge, on which traffic, and what each cure costs.

    Examples: `adscent lab divergence --seeds 5 --report lab.json --html lab.html` ·
    `adscent lab divergence --tune`
    """
    from jobs.lab.run import run

    raise typer.Exit(run(seeds, report, html, quick=quick, tuning=tune))


@lab.command("exploration")
def lab_exploration(
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Markets, one a seed.")] = 8,
    report: Report = None,
) -> None:
    """What trying new ads brings, and what it costs, by rule and budget.

    Example: `adscent lab exploration --seeds 8 --report exploration.json`
    """
    from jobs.lab.exploration import run

    raise typer.Exit(run(seeds, report))


@lab.command("late-clicks")
def lab_late_clicks(
    share: Annotated[float, typer.Option(min=0, max=1, help="Part of the clicks.")] = 0.05,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Markets, one a seed.")] = 5,
    events: Annotated[int, typer.Option(min=1000, help="Impressions of a market.")] = 300_000,
    report: Report = None,
) -> None:
    """What clicks cost that come after their impression was learned, and what learning them saves.

    Example: `adscent lab late-clicks --share 0.05 --report late.json`
    """
    from jobs.lab.late_clicks import run

    raise typer.Exit(run(share, seeds, events, report))


@lab.command("ablation")
def lab_ablation(
    log: Annotated[Path | None, typer.Argument(help="A log; without one, seeded markets.")] = None,
    features: Features = None,
    label: Annotated[str, typer.Option(help="The log's 0/1 label column.")] = "clicked",
    chunk: Annotated[str, typer.Option(help="Length of a chunk of the log: 1h, 30m.")] = "1h",
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Seeds of every variant.")] = 5,
    events: Annotated[int, typer.Option(min=1000, help="Impressions of a market.")] = 300_000,
    report: Report = None,
) -> None:
    """The learner without each of its parts, in paired differences of log loss.

    On markets an interval spans the seeds, a market each: with one seed there is none. On a log it
    spans the events.

    Examples: `adscent lab ablation --seeds 5 --report ablation.json` ·
    `adscent lab ablation events.csv.gz --features features.toml --label clicked`
    """
    from jobs.lab.ablation import run

    raise typer.Exit(run(log, features, label, chunk, seeds, events, report))
