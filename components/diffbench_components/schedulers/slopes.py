"""What schedulers that move x/alpha along a slope share: where they cannot start."""

# of alpha over the first step; beyond it errors of the first slopes swamp the image
LARGEST_GAIN = 50.0


def why_not_from_here(name: str, steps: int, cell) -> str | None:
    """Why a solver in x/alpha cannot make its first step in this cell, or None.

    Errors of the first slopes are multiplied by alpha_s/alpha_t. Measured on Gaussian data of standard deviation 0.5,
    cosine schedule, uniform spacing: a gain of 630 (50 steps) ends at 562 with pndm, one of 130 (250 steps) at 0.67.
    """
    t, s = cell.spacing(cell.noise_schedule, steps)[:2].tolist()
    alpha_t, alpha_s = cell.noise_schedule.at(t).alpha, cell.noise_schedule.at(s).alpha
    if alpha_t == 0.0:
        return (f"{name} cannot start at zero terminal SNR: its map divides by alpha; use a spacing that starts below "
                "t = 1")
    if alpha_s > LARGEST_GAIN * alpha_t:
        return (f"{name} would multiply errors by {alpha_s / alpha_t:.0f} in its first step, as alpha rises from "
                f"{alpha_t:.2g} to {alpha_s:.2g}; "
                "use a spacing that starts below t = 1, such as 'uniform: {start: 0.98}', or more steps")
    return None
