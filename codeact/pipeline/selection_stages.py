"""Score, embed, cluster, choose: which rows are worth training on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.files import read_parquet, write_npy, write_parquet
from codeact.models import demo_embedder
from codeact.pipeline.score_method import ScoreMethod
from codeact.pipeline.score_words import score_words
from codeact.pipeline.selection_inputs import budget_of, candidates, score_override
from codeact.pipeline.stage import StageContext, StageResult, count_statuses
from codeact.progress import OnProgress
from codeact.scoring import Embedder, Scorer, ifd_preset
from codeact.selection import LengthMatchedRandom, cluster_kmeans, select_rows

# Rows scored between two saves: what a killed run repeats at most, and a tenth of a second of I/O.
SHARD_SIZE = 64
# As many times more on a GPU, which is as much faster: a shard of few packs would leave it waiting
# for the first and the last of them.
_CUDA_SHARDS = 128


def score_in_shards(
    scorer: Scorer,
    examples: Examples,
    folder: Path,
    on_progress: OnProgress | None = None,
    method: ScoreMethod | None = None,
) -> pa.Table:
    """The scores table, kept shard by shard in ``folder`` so that a killed run goes on.

    Shards are cut by row number and packed on their own, so the table is the same however often
    the run was interrupted. The folder must belong to these rows and options alone.

    Args:
        scorer: scores the rows.
        examples: all rows.
        folder: where shards are kept.
        on_progress: called with rows done and rows in all.
        method: makes the table of some rows; None is IFD. The tables are put together as they are,
            see :meth:`ScoreMethod.finish`.
    """
    method = method or ScoreMethod()
    folder.mkdir(parents=True, exist_ok=True)
    on_gpu = scorer.model.device.type != "cpu"
    size = max(1, SHARD_SIZE * (_CUDA_SHARDS if on_gpu else 1) // method.num_passes)
    tables = []
    for start in range(0, len(examples), size):
        shard = folder / f"{start // size:06d}.parquet"
        stop = min(start + size, len(examples))
        if not shard.exists():

            def progress(done: int, total: int, start: int = start) -> None:
                if on_progress is not None and done < total:
                    on_progress(start + done, len(examples))

            rows = examples.select(range(start, stop))
            write_parquet(shard, method.score(scorer, rows, progress))
        tables.append(pq.read_table(shard))
        if on_progress is not None:
            on_progress(stop, len(examples))
    return pa.concat_tables(tables)


def score_stage(context: StageContext) -> StageResult:
    """The preset's score of every candidate; writes ``scores.parquet``."""
    section = context.recipe.score
    scorer = _scorer(context)
    method = ScoreMethod(
        ifd_preset(section.preset).method, num_copies=section.num_copies, seed=context.recipe.seed
    )
    shards = context.folder / f"scores.parts/{context.stage_hash[:16]}"
    parts = score_in_shards(scorer, context.examples(), shards, context.on_progress, method)
    table = method.finish(parts).table
    write_parquet(context.folder / "scores.parquet", table)
    shutil.rmtree(shards.parent)
    counts = count_statuses(table["status"].to_pylist())
    return StageResult(["scores.parquet"], f"{table.num_rows} rows: {counts}")


def embed_stage(context: StageContext) -> StageResult:
    """One vector a candidate, and a query; writes ``embeddings.npy`` and ``queries.npy``."""
    embed, name = _embedder(context)
    vectors = embed(context.examples(), context.on_progress)
    write_npy(context.folder / "embeddings.npy", vectors)
    files = ["embeddings.npy"]
    queries = context.recipe.select.queries
    if queries is not None:
        rows = load_examples(queries, needs_response=False)
        write_npy(context.folder / "queries.npy", embed(rows, lambda done, total: None))
        files.append("queries.npy")
    return StageResult(files, f"{len(vectors)} vectors of {vectors.shape[1]} by {name}")


def _embedder(
    context: StageContext,
) -> tuple[Callable[[Examples, OnProgress], NDArray[np.float32]], str]:
    """Vectors of rows, and who makes them."""
    section = context.recipe.embed
    if section.model == "scoring-model":
        scorer = _scorer(context)

        def states(rows: Examples, on_progress: OnProgress) -> NDArray[np.float32]:
            vectors = scorer.embed(
                rows, pool=section.pool, text=section.text, on_progress=on_progress
            )
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            unit: NDArray[np.float32] = vectors / lengths  # as sentence encoders give them
            return unit

        return states, Path(context.model_path).name
    path = section.model or str(demo_embedder())
    embedder = Embedder(
        path,
        text=section.text,
        device=context.recipe.model.device,
        batch_size=section.batch_size,
    )
    return lambda rows, progress: embedder.embed(rows, on_progress=progress), Path(path).name


def _scorer(context: StageContext) -> Scorer:
    section = context.recipe.score
    return Scorer(
        context.load_model(),
        preset=section.preset,
        max_length=section.max_length,
        token_budget=section.token_budget,
    )


def cluster_stage(context: StageContext) -> StageResult:
    """k-means; writes ``clusters.parquet``."""
    section = context.recipe.select
    ids = [example.id for example in context.examples()]
    authors_rule = section.method == "cdas" and not section.options.get("exact_budget", True)
    clusters = cluster_kmeans(
        np.load(context.folder / "embeddings.npy", mmap_mode="r"),
        num_clusters=section.num_clusters,
        seed=context.recipe.seed,
        algorithm="scikit-learn" if authors_rule else "full",
        ids=ids,
    )
    context.on_progress(1, 1)
    table = pa.table(
        {
            "id": ids,
            "cluster": pa.array(clusters.cluster_labels, pa.int32()),
            "distance": pa.array(clusters.distances, pa.float32()),
        }
    )
    write_parquet(context.folder / "clusters.parquet", table)
    sizes = np.bincount(clusters.cluster_labels)
    return StageResult(
        ["clusters.parquet"], f"{len(sizes)} clusters of {sizes.min()} to {sizes.max()} rows"
    )


def select_stage(context: StageContext) -> StageResult:
    """The method and its random control; writes ``selection.parquet`` and ``subset.jsonl``."""
    recipe, folder = context.recipe, context.folder
    scores = pq.read_table(folder / "scores.parquet")
    labels = read_parquet(folder / "clusters.parquet", ["cluster"])["cluster"].to_numpy()
    queries = folder / "queries.npy"
    column = score_words(recipe).column
    values = scores[column].to_numpy(zero_copy_only=False)
    if np.isnan(values).all():
        raise InputError("score: no row could be scored (see the status column of scores.parquet)")
    chosen = select_rows(
        recipe.select.method,
        candidates(
            recipe,
            scores,
            np.load(folder / "embeddings.npy", mmap_mode="r"),
            labels,
            np.load(queries) if queries.is_file() else None,
        ),
        budget_of(recipe),
        seed=recipe.seed,
        score=score_override(recipe),
        device=recipe.model.device,
        **recipe.select.options,
    )
    if len(chosen.selected_) == 0:
        raise InputError(
            f"select.budget = {recipe.select.budget} keeps none of {len(scores)} rows: the "
            "authors' rule rounds down in every cluster; ask for more, or for an exact budget"
        )
    kept = np.zeros(len(scores), dtype=bool)
    kept[chosen.selected_] = True
    kept_random = _control(scores, values, chosen.selected_, recipe.seed)
    table = pa.table(
        {
            "id": scores["id"],
            "cluster": pa.array(labels, pa.int32()),
            column: scores[column],
            "num_response_tokens": scores["num_response_tokens"],
            "kept": kept,
            "rank": pa.array(chosen.ranks_, pa.int32()),
            "reason": chosen.reasons_,
            "kept_random": kept_random,
        }
    )
    write_parquet(folder / "selection.parquet", table)
    context.examples().select(np.flatnonzero(kept)).write_jsonl(folder / "subset.jsonl")
    context.on_progress(1, 1)
    return StageResult(
        ["selection.parquet", "subset.jsonl"],
        f"{kept.sum()} of {len(scores)} rows kept by {recipe.select.method}; the length-matched "
        f"random control shares {(kept & kept_random).sum()} of them",
    )


def _control(
    scores: pa.Table, values: NDArray[np.float64], selected: NDArray[np.int64], seed: int
) -> NDArray[np.bool_]:
    """Rows of the length-matched random control, out of those with a score and those selected."""
    eligible = ~np.isnan(values)
    eligible[selected] = True
    control = LengthMatchedRandom(seed).fit(
        scores["num_response_tokens"].to_numpy(), selected, eligible, ids=scores["id"].to_pylist()
    )
    kept = np.zeros(len(values), dtype=bool)
    kept[control.selected_] = True
    return kept
