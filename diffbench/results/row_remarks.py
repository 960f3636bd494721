"""Notes for readers on a row that is ok: its column `reason`. Used by `rows`."""

from __future__ import annotations

from diffbench.results.columns import Record

# share of clamped pixels, of repeated and of flat samples, above which a row says so
NOTABLE = 0.05


def remarks(row: Record) -> list[str]:
    """The notes, most important first."""
    texts = []
    if row["sample_batch_size"] < row["sample_batch_size_asked"]:
        texts.append(f"sampled in batches of {row['sample_batch_size']} instead of {row['sample_batch_size_asked']} "
                     "after running out of memory")
    if row.get("feature_count") and row["sample_count"] <= row["feature_count"]:
        texts.append(f"{row['sample_count']} samples for {row['feature_count']} features: the distance rests on a "
                     "covariance that is rank-deficient")
    if row.get("extractor_remark"):
        texts.append(row["extractor_remark"])
    if row["clamped_share"] > NOTABLE:
        texts.append(f"{row['clamped_share']:.0%} of all pixels lay outside of the range of images and were clamped")
    repeats, flat, count = row["sample_count"] - row["distinct_count"], row["flat_count"], row["sample_count"]
    if repeats > NOTABLE * count:
        texts.append(f"{repeats} of {count} samples repeat another one to the last pixel")
    if flat > NOTABLE * count:
        texts.append(f"{flat} of {count} samples are one flat colour")
    if row.get("imported_from"):
        texts.append(f"imported from {row['imported_from']}")
    if row.get("dataset_remark"):
        texts.append(f"data: {row['dataset_remark']}")
    return texts
