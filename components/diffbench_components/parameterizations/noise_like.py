"""What parameterizations that predict the noise share: where x0_hat = (x - sigma eps_hat)/alpha is not to be had."""

LARGEST_GAIN = 50.0  # of an error of eps_hat over one step, in standard deviations of x_s, where nothing clips x0_hat
VARIANCE = 0.25  # of the data: pixels in [-1, 1] have a standard deviation of about 0.5


def why_not_decoded(name: str, cell) -> str | None:
    """Why x0_hat is not defined in a cell, or is lost to the network's errors, or None.

    Over a step from t to s an error of eps_hat becomes sigma_s - alpha_s sigma_t/alpha_t times it. Clipping bounds
    x0_hat and so the error; without it 630 times the error of a trained network (cosine, 50 uniform steps from t = 1)
    ends at chance level.
    """
    schedule = cell.noise_schedule
    if schedule.at(1.0).alpha == 0.0:
        return f"{name} cannot be decoded at zero terminal SNR: alpha(1) = 0 leaves x_0 undetermined; use v or x0"
    if cell.sample.clip:
        return None
    times = cell.spacing(schedule, cell.scheduler.steps)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)  # [N + 1]
    gains = (sigma[1:] - alpha[1:] * sigma[:-1] / alpha[:-1]).abs() / (
        alpha[1:] ** 2 * VARIANCE + sigma[1:] ** 2
    ).sqrt()  # [N]
    if float(gains.max()) > LARGEST_GAIN:
        return (
            f"{name} without clipping would multiply the network's errors by {float(gains.max()):.0f} in the step from "
            f"t = {float(times[gains.argmax()]):.3g}; write 'sample: {{clip: true}}', use v or x0, more steps, or a "
            "spacing that starts below t = 1"
        )
    return None
