"""Cluster pruning on small clustered rows, against plain ports of its steps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare, gaussian_kde
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_distances

from codeact.errors import InputError
from codeact.selection.budget import TokenBudget, split_by_largest_remainder
from codeact.selection.cluster_prune import ClusterPruner
from codeact.selection.clustering import Clusters
from codeact.selection.reduction import reduce_dimensions
from codeact.selection.rows import Rows

METRICS = ["diversity", "density", "nearest", "random"]


def blobs(num_rows: int = 240, dim: int = 24, num_blobs: int = 6):
    """Embeddings around a few centres, and which is whose."""
    random = np.random.default_rng(7)
    labels = np.sort(random.integers(num_blobs, size=num_rows)).astype(np.int32)
    centres = 2 * random.normal(size=(num_blobs, dim))
    points = centres[labels] + 0.4 * random.normal(size=(num_rows, dim))
    return points.astype(np.float32), labels


def reduced_in_order(points, num_components: int = 10, ids=None):
    """What is clustered and measured, in the order of places, and that order."""
    rows = Rows(len(points), ids, points)
    return reduce_dimensions(rows.arranged(points), num_components).vectors, rows.order


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sampling", ["proportional", "top"])
def test_each_cluster_keeps_its_share_exactly(metric, sampling):
    points, labels = blobs()
    sizes = np.bincount(labels)
    for budget, count in ((0.3, 72), (101, 101), (1.0, 240), (1, 1)):
        pruner = ClusterPruner(budget, metric=metric, sampling=sampling)
        pruner.fit(points, clusters=labels)
        kept = np.bincount(labels[pruner.selected_], minlength=6)
        assert len(set(pruner.selected_.tolist())) == count == kept.sum()
        assert (np.abs(kept - count * sizes / 240) < 1).all()
        assert pruner.report_.cluster_kept == tuple(kept)
        assert pruner.report_.cluster_sizes == tuple(sizes)


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "content"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_rows_does_not_matter(metric, with_ids):
    points, _ = blobs()
    names = np.array([f"row-{row}" for row in range(len(points))])
    shuffle = np.random.default_rng(3).permutation(len(points))
    for options in ({"clusterer": "none"}, {"num_clusters": 5, "kmeans_algorithm": "scikit-learn"}):
        pruner = ClusterPruner(0.4, metric=metric, **options)
        first = pruner.fit(points, ids=names if with_ids else None)
        kept, weights, reasons = first.selected_, first.weights_, list(first.reasons_)
        again = pruner.fit(points[shuffle], ids=names[shuffle] if with_ids else None)
        assert np.array_equal(shuffle[again.selected_], kept)
        assert np.array_equal(again.weights_, weights[shuffle])
        assert again.reasons_ == [reasons[row] for row in shuffle]


def test_the_seed_decides_what_is_drawn():
    points, labels = blobs()
    drawn = [ClusterPruner(0.3, seed=s).fit(points, clusters=labels).selected_ for s in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1])
    assert set(drawn[0].tolist()) != set(drawn[2].tolist())


@pytest.mark.parametrize("metric", ["nearest", "density"])
def test_rows_are_drawn_in_proportion_to_their_weight(metric):
    random = np.random.default_rng(5)
    points = random.normal(size=(8, 3)).astype(np.float32)
    labels = np.array([0] * 5 + [1] * 3)
    firsts = np.zeros((2, 8))
    for seed in range(800):
        pruner = ClusterPruner(4, metric=metric, pca_components=None, quotas="equal", seed=seed)
        pruner.fit(points, clusters=labels)
        for row in np.flatnonzero(pruner.ranks_ == 0):
            firsts[labels[row], row] += 1
    for cluster in (0, 1):
        inside = labels == cluster
        weights = pruner.weights_[inside]
        expected = 800 * weights / weights.sum()
        assert firsts[cluster].sum() == 800
        assert chisquare(firsts[cluster, inside], expected).pvalue > 1e-3


def test_draws_without_replacement_follow_the_keys():
    points, labels = blobs()
    names = [f"row-{row}" for row in range(len(points))]
    pruner = ClusterPruner(0.35, metric="nearest", seed=11).fit(points, clusters=labels, ids=names)
    waits = -np.log(Rows(len(points), names).uniforms(11, "cluster-prune")) / pruner.metric_
    sizes = np.bincount(labels)
    quotas = split_by_largest_remainder(84, sizes, np.zeros(6, dtype=np.int64))
    for cluster in range(6):
        inside = np.flatnonzero(labels == cluster)
        order = inside[np.argsort(waits[inside])]
        kept = pruner.selected_[labels[pruner.selected_] == cluster]
        assert abs(len(kept) - quotas[cluster]) <= 1  # equal remainders go by the rows' places
        assert np.array_equal(kept, order[: len(kept)])
        assert np.array_equal(pruner.ranks_[order], np.arange(len(order)))


def test_top_keeps_the_largest_weights():
    points, labels = blobs()
    for metric, sign in (("diversity", 1), ("nearest", 1), ("density", -1)):
        pruner = ClusterPruner(0.5, metric=metric, sampling="top").fit(points, clusters=labels)
        for cluster in range(6):
            inside = labels == cluster
            kept = np.isin(np.arange(len(points)), pruner.selected_)
            value = sign * pruner.metric_
            assert value[inside & kept].min() >= value[inside & ~kept].max()


def test_metrics_are_those_of_the_reduced_rows():
    points, labels = blobs()
    vectors, order = reduced_in_order(points)
    pruner = ClusterPruner(0.5, metric="density").fit(points, clusters=labels)
    truth = gaussian_kde(vectors.T.astype(np.float64)).logpdf(vectors.T.astype(np.float64))
    error = np.abs(pruner.metric_[order] - truth)
    assert (error <= 1e-6 * np.maximum(1, np.abs(truth))).all()
    assert np.allclose(pruner.weights_[order], np.exp(truth.min() - truth), rtol=1e-4)
    pruner = ClusterPruner(0.5, metric="diversity", query_share=1.0).fit(points, clusters=labels)
    every = cosine_distances(vectors.astype(np.float64))
    np.fill_diagonal(every, np.inf)
    assert np.abs(pruner.metric_[order] - every.min(axis=1)).max() <= 1e-6
    tenth = ClusterPruner(0.5, metric="diversity").fit(points, clusters=labels).metric_[order]
    assert (tenth >= every.min(axis=1) - 1e-6).all()
    assert (tenth > every.min(axis=1) + 1e-6).mean() > 0.5  # for most their nearest is no query
    # 24 of the 240 rows explain all distances, each to one of them.
    explains = np.abs(every - tenth[:, None]) <= 1e-6
    assert explains.any(axis=1).all()
    assert 12 <= explains.any(axis=0).sum() <= 60


def test_labels_are_those_of_scikit_learn():
    points, _ = blobs()
    vectors, order = reduced_in_order(points)
    pruner = ClusterPruner(0.5, num_clusters=7, kmeans_algorithm="scikit-learn", seed=3)
    pruner.fit(points)
    truth = KMeans(n_clusters=7, random_state=3, n_init="auto").fit(vectors).labels_
    assert np.array_equal(pruner.cluster_labels_[order], truth)


def test_labels_are_those_of_hdbscan():
    hdbscan = pytest.importorskip("hdbscan")
    points, _ = blobs()
    points[::8] = 2 * np.random.default_rng(9).normal(size=(30, 24))  # in no blob
    # Which of equal edges are in its tree depends on the order of rows, which ids decide.
    names = [f"row-{row}" for row in range(len(points))]
    vectors, order = reduced_in_order(points, ids=names)
    model = hdbscan.HDBSCAN(min_cluster_size=5, min_samples=5, approx_min_span_tree=False)
    truth = model.fit(vectors.astype(np.float64)).labels_
    pruner = ClusterPruner(0.2, clusterer="hdbscan").fit(points, ids=names)
    labels = pruner.cluster_labels_[order]
    assert (truth < 0).any()
    assert np.array_equal(labels < 0, truth < 0)
    assert adjusted_rand_score(labels, truth) == 1
    assert not set(pruner.selected_.tolist()) & set(np.flatnonzero(pruner.cluster_labels_ < 0))


@pytest.mark.parametrize("clusterer", ["kmeans", "agglomerative"])
@pytest.mark.parametrize("num_clusters", [6, "elbow"])
def test_clusterers_find_the_blobs(clusterer, num_clusters):
    points, labels = blobs()
    pruner = ClusterPruner(0.5, clusterer=clusterer, num_clusters=num_clusters).fit(points)
    if num_clusters == 6:
        assert adjusted_rand_score(pruner.cluster_labels_, labels) > 0.9
    assert 2 <= pruner.report_.num_clusters <= 60
    assert len(pruner.selected_) == 120


def test_noise_is_dropped_or_stands_alone():
    points, labels = blobs()
    noisy = labels.copy()
    noisy[::4] = -1
    dropped = ClusterPruner(0.7).fit(points, clusters=noisy)
    assert not (noisy[dropped.selected_] < 0).any()
    assert (dropped.report_.num_noise, dropped.report_.num_eligible) == (60, 180)
    assert (dropped.reasons_[0], dropped.ranks_[0]) == ("dropped: noise, in no cluster", -1)
    with pytest.raises(InputError, match="only 180 are eligible, 12 too few: 60 are noise"):
        ClusterPruner(0.8).fit(points, clusters=noisy)
    alone = ClusterPruner(0.9, noise="singletons").fit(points, clusters=noisy)
    assert (alone.report_.num_clusters, alone.report_.num_noise) == (66, 60)
    assert len(alone.selected_) == 216
    assert (noisy[alone.selected_] < 0).any()
    with pytest.raises(InputError, match="only 0 are eligible"):
        ClusterPruner(1).fit(points, clusters=np.full(240, -1))


def test_clusters_may_be_an_object():
    points, labels = blobs()
    given = Clusters.from_labels(points, labels)
    found = ClusterPruner(0.3).fit(points, clusters=given)
    assert np.array_equal(
        found.selected_, ClusterPruner(0.3).fit(points, clusters=labels).selected_
    )


def test_a_budget_in_tokens_is_kept():
    points, labels = blobs()
    num_tokens = np.random.default_rng(1).integers(20, 400, size=240)
    pruner = ClusterPruner(TokenBudget(0.5)).fit(points, clusters=labels, num_tokens=num_tokens)
    spent = num_tokens[pruner.selected_].sum()
    asked = pruner.report_.tokens_asked
    left_over = np.delete(num_tokens, pruner.selected_)
    assert asked == (num_tokens.sum() + 1) // 2
    assert asked - left_over.min() < spent <= asked
    assert pruner.report_.tokens_kept == spent


def test_exact_duplicates_come_last():
    points, _ = blobs(60)
    points[40:] = points[:20]
    pruner = ClusterPruner(20, clusterer="none", metric="nearest").fit(
        points, ids=[str(row) for row in range(60)]
    )
    assert sorted(pruner.selected_.tolist()) == list(range(20, 40))
    assert (pruner.weights_[:20] == 0).all()
    assert pruner.weights_.max() == 1
    pruner.set_params(budget=25).fit(points, ids=[str(row) for row in range(60)])
    assert set(range(20, 40)) < set(pruner.selected_.tolist())


def test_every_row_has_a_reason():
    points, labels = blobs()
    for metric, words in (
        ("density", "drawn with a weight from log density"),
        ("random", "drawn at random"),
    ):
        pruner = ClusterPruner(0.5, metric=metric).fit(points, clusters=labels)
        best = pruner.selected_[0]
        assert (
            f"kept: place 1 of {(labels == labels[best]).sum()} in cluster"
            in (pruner.reasons_[best])
        )
        assert all(words in reason for reason in pruner.reasons_)
        kept = [row for row, reason in enumerate(pruner.reasons_) if reason.startswith("kept")]
        assert kept == sorted(pruner.selected_.tolist())


def test_benchmarks_to_fit_on_give_a_warning():
    points, labels = blobs()
    with pytest.warns(UserWarning, match="pca_fit_on"):
        ClusterPruner(0.5).fit(points, clusters=labels, pca_fit_on=points[:40])


def test_refused():
    points, labels = blobs()
    for name, value in (
        ("clusterer", "dbscan"),
        ("metric", "ifd"),
        ("sampling", "bottom"),
        ("noise", "keep"),
        ("quotas", "fair"),
    ):
        with pytest.raises(InputError, match=f"{name} must be one of .*, got '{value}'"):
            ClusterPruner(**{name: value}).fit(points, clusters=labels)
    for share in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match="query_share must be in"):
            ClusterPruner(query_share=share).fit(points, clusters=labels)
    with pytest.raises(InputError, match="240 integer labels"):
        ClusterPruner().fit(points, clusters=labels[:-1])
    with pytest.raises(InputError, match="needs num_tokens"):
        ClusterPruner(TokenBudget(10)).fit(points, clusters=labels)
    points[5, 5] = np.nan
    with pytest.raises(InputError, match="embeddings must be finite"):
        ClusterPruner().fit(points, clusters=labels)
