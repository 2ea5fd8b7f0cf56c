"""Score, embed, cluster, choose: which rows are worth training on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeact.data import Examples
from codeact.errors import InputError
from codeact.files import read_parquet, write_npy, write_parquet
from codeact.models import demo_embedder
from codeact.pipeline.score_method import ScoreMethod
from codeact.pipeline.stage import StageContext, StageResult, count_statuses
from codeact.progress import OnProgress
from codeact.scoring import Embedder, Scorer, ifd_preset
from codeact.selection import CDAS, LengthMatchedRandom, cluster_kmeans

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
    """IFD of every candidate; writes ``scores.parquet``."""
    section = context.recipe.score
    scorer = Scorer(
        context.load_model(),
        preset=section.preset,
        max_length=section.max_length,
        token_budget=section.token_budget,
    )
    shards = context.folder / f"scores.parts/{context.stage_hash[:16]}"
    table = score_in_shards(scorer, context.examples(), shards, context.on_progress)
    write_parquet(context.folder / "scores.parquet", table)
    shutil.rmtree(shards.parent)
    counts = count_statuses(table["status"].to_pylist())
    return StageResult(["scores.parquet"], f"{table.num_rows} rows: {counts}")


def embed_stage(context: StageContext) -> StageResult:
    """One vector a candidate; writes ``embeddings.npy``."""
    section = context.recipe.embed
    if section.model == "scoring-model":
        path = context.model_path
    else:
        path = section.model or str(demo_embedder())
    embedder = Embedder(path, device=context.recipe.model.device, batch_size=section.batch_size)
    vectors = embedder.embed(context.examples(), on_progress=context.on_progress)
    write_npy(context.folder / "embeddings.npy", vectors)
    return StageResult(
        ["embeddings.npy"], f"{len(vectors)} vectors of {vectors.shape[1]} by {Path(path).name}"
    )


def cluster_stage(context: StageContext) -> StageResult:
    """k-means; writes ``clusters.parquet``."""
    section = context.recipe.select
    clusters = cluster_kmeans(
        np.load(context.folder / "embeddings.npy"),
        num_clusters=section.num_clusters,
        seed=context.recipe.seed,
    )
    context.on_progress(1, 1)
    table = pa.table(
        {
            "id": [example.id for example in context.examples()],
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
    """CDAS and its random control; writes ``selection.parquet`` and ``subset.jsonl``."""
    section = context.recipe.select
    score = ifd_preset(context.recipe.score.preset).score
    scores = read_parquet(
        context.folder / "scores.parquet", ["id", "num_response_tokens", "ifd_ppl", "ifd_loss"]
    )
    labels = read_parquet(context.folder / "clusters.parquet", ["cluster"])["cluster"].to_numpy()
    ifd = scores[score].to_numpy(zero_copy_only=False)
    if np.isnan(ifd).all():
        raise InputError("score: no row could be scored (see the status column of scores.parquet)")
    ids = scores["id"].to_pylist()
    cdas = CDAS(
        section.budget, section.num_clusters, context.recipe.seed, section.exact_budget
    ).fit(None, ifd, clusters=labels, ids=ids)
    if len(cdas.selected_) == 0:
        raise InputError(
            f"select.budget = {section.budget} keeps none of {len(ids)} rows in "
            f"{section.num_clusters} clusters; set select.exact_budget or ask for more"
        )
    lengths = scores["num_response_tokens"].to_numpy()
    random = LengthMatchedRandom(context.recipe.seed).fit(lengths, cdas.selected_, ~np.isnan(ifd))
    kept, kept_random = np.zeros((2, len(ids)), dtype=bool)
    kept[cdas.selected_] = True
    kept_random[random.selected_] = True
    table = pa.table(
        {
            "id": ids,
            "cluster": pa.array(labels, pa.int32()),
            "ifd_ppl": scores["ifd_ppl"],
            "num_response_tokens": scores["num_response_tokens"],
            "kept": kept,
            "rank": pa.array(cdas.ranks_, pa.int32()),
            "reason": cdas.reasons_,
            "kept_random": kept_random,
        }
    )
    write_parquet(context.folder / "selection.parquet", table)
    context.examples().select(np.flatnonzero(kept)).write_jsonl(context.folder / "subset.jsonl")
    context.on_progress(1, 1)
    return StageResult(
        ["selection.parquet", "subset.jsonl"],
        f"{kept.sum()} of {len(ids)} rows kept; the length-matched random control shares "
        f"{(kept & kept_random).sum()} of them",
    )
