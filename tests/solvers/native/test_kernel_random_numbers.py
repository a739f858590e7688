import numpy as np

from optiprune.solvers.native.rng import (
    GUMBEL_BITS,
    below,
    gumbel_table,
    new_state,
    next_u64,
    uniform,
)

_MASK = (1 << 64) - 1


def _twin(state):
    """xoshiro256++ in Python integers, written from the paper."""

    def rotl(v, k):
        return ((v << k) | (v >> (64 - k))) & _MASK

    s = [int(v) for v in state]
    while True:
        yield (rotl((s[0] + s[3]) & _MASK, 23) + s[0]) & _MASK
        t = (s[1] << 17) & _MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)


def test_the_generator_is_xoshiro256_plus_plus():
    state = new_state(np.random.SeedSequence(7))
    twin = _twin(state.copy())
    assert [int(next_u64(state)) for _ in range(200)] == [next(twin) for _ in range(200)]


def test_first_output_by_hand():
    # state (1, 2, 3, 4): rotl(1 + 4, 23) + 1 = 5 * 2**23 + 1
    state = np.array([1, 2, 3, 4], dtype=np.uint64)
    assert int(next_u64(state)) == 5 * 2**23 + 1


def test_integers_below_m_are_all_hit_and_about_equally():
    state = new_state(np.random.SeedSequence(1))
    counts = np.bincount([below(state, 7) for _ in range(7000)], minlength=7)
    assert len(counts) == 7
    assert (np.abs(counts - 1000) < 150).all()  # 5 standard deviations


def test_uniform_lies_in_the_half_open_interval():
    state = new_state(np.random.SeedSequence(2))
    v = np.array([uniform(state) for _ in range(5000)])
    assert v.min() >= 0
    assert v.max() < 1
    assert abs(v.mean() - 0.5) < 0.03


def test_gumbel_table_has_the_moments_of_the_distribution_and_wraps_around():
    table = gumbel_table(64, True)
    m = 1 << GUMBEL_BITS
    assert table.shape == (m + 64,)
    assert abs(table[:m].mean() - np.euler_gamma) < 1e-3
    assert abs(table[:m].var() - np.pi**2 / 6) < 1e-2
    np.testing.assert_array_equal(table[m:], table[:64])
    assert not table.flags.writeable
