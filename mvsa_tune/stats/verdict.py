"""The answer in words: what is best, what it cannot be told from, how much of its lead is luck, and the reference's own questions."""

from mvsa_tune.stats.analysis import Analysis

NAMED = 5


def verdict(analysis: Analysis) -> list[str]:
    """A sweep's answer, a paragraph each; nothing before anything has been trained to its end."""
    if not analysis.ranked:
        return []
    first = analysis.ranked[0]
    of = first.cross
    mean = float(first.values.mean())
    told = f" (95 % {of.low:.3f} to {of.high:.3f}, for {of.holds_for}; n {of.n})" if of else ""
    best = (
        f"; at its best epoch {first.best.mean:.3f}, after the last {first.last.mean:.3f}"
        if first.best and first.last
        else ""
    )
    lines = [f"Best of this sweep by cross-fitted accuracy: **{first.config.name}**, {mean:.3f}{told}{best}."]
    lines += filter(None, [_tied(analysis), _luck(analysis), _questions(analysis)])
    return lines


def _tied(analysis: Analysis) -> str:
    others = len(analysis.ranked) - 1
    if not others:
        return ""
    if not analysis.against_best:
        return "One draw of the samples cannot tell configurations apart: give two seeds at least."
    tied = analysis.tied()
    if not tied:
        return f"It is better than each of the other {others} (p below 0.05, Holm over every two)."
    names = "; ".join(one.config.name for one in tied[:NAMED])
    more = f"; and {len(tied) - NAMED} more" if len(tied) > NAMED else ""
    return f"It cannot be told from {len(tied)} of the other {others} (p 0.05 or more, Holm over every two): {names}{more}."


def _luck(analysis: Analysis) -> str:
    found = analysis.winner
    if found is None:
        return ""
    return (
        f"Its lead over the mean of all {len(analysis.ranked)} is {100 * found.lead:.1f} points; the best of as many equally good ones would lead by "
        f"{100 * found.luck:.1f} (as much or more in {found.p:.2g} of draws). Corrected for having been chosen it is worth {found.corrected:.3f}."
    )


def _questions(analysis: Analysis) -> str:
    return "\n".join(f"- {one.text} {one.answer}" for one in analysis.questions)
