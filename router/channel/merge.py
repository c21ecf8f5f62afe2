"""Two token frames of one stream as one: whoever is slow gets longer frames, not more of them."""

from heliostat.wire import TokenDelta, TokenFrame


def merge_frames(earlier: TokenFrame, later: TokenFrame) -> TokenFrame:
    """Both frames' tokens in order, sequence by sequence; the later one's load."""
    if len(earlier.deltas) == len(later.deltas) == 1 and earlier.deltas[0].index == later.deltas[0].index:
        deltas: tuple[TokenDelta, ...] = (_merge(earlier.deltas[0], later.deltas[0]),)
    else:
        by_index = {delta.index: delta for delta in earlier.deltas}
        for delta in later.deltas:
            known = by_index.get(delta.index)
            by_index[delta.index] = _merge(known, delta) if known else delta
        deltas = tuple(by_index.values())
    load_ms = later.load_ms if later.load_ms is not None else earlier.load_ms
    cached_tokens = earlier.cached_tokens if earlier.cached_tokens is not None else later.cached_tokens
    cross_model_tokens = earlier.cross_model_tokens + later.cross_model_tokens  # only one of them has any
    return TokenFrame(deltas, later.finished, later.load, load_ms, cached_tokens, cross_model_tokens)


def num_tokens(frame: TokenFrame) -> int:
    """Over all of its sequences."""
    if len(frame.deltas) == 1:
        return len(frame.deltas[0].token_ids)
    return sum(len(delta.token_ids) for delta in frame.deltas)


def _merge(earlier: TokenDelta, later: TokenDelta) -> TokenDelta:
    logprobs = None
    if earlier.logprobs is not None or later.logprobs is not None:
        logprobs = (earlier.logprobs or ()) + (later.logprobs or ())
    return TokenDelta(
        index=later.index,
        token_ids=earlier.token_ids + later.token_ids,
        logprobs=logprobs,
        finish_reason=later.finish_reason,
        stop_reason=later.stop_reason,
    )
