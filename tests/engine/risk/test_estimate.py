"""Every figure says how it was computed, and by the method that did: dispatch, stand-ins, bookkeeping, the axioms.

The mathematics of each method are tested beside its own module; here they are the references.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from engine.risk.estimate import Ask, Basis, Book, Method, VarEstimate, asks, estimate, estimates
from engine.risk.filtered import ewma_filtered, garch_filtered
from engine.risk.horizon import overlapping_returns
from engine.risk.monte_carlo import fit_path_model, simulate
from engine.risk.parametric import book_tail_loss, cornish_fisher_tail, gaussian_tail, skewness_and_excess_kurtosis
from engine.risk.shrinkage import shrunk_covariance
from engine.risk.var import expected_shortfall, value_at_risk
from gateway.market.prices import sample_us_stocks

Floats = NDArray[np.float64]
ALL_METHODS: tuple[Method, ...] = ("historical", "parametric", "monte_carlo", "filtered")
SYMBOLS = ("AAPL", "JPM", "XOM", "KO")
VALUES = np.array([3e5, -1e5, 2e5, 1e5])
BOOK = Book.of(VALUES)
WITH_ORDERS = Book(VALUES, VALUES - np.array([0.0, 5e4, 0.0, 0.0]), VALUES + np.array([1e5, 0.0, 0.0, 2e5]))


def stocks() -> Floats:
    prices = sample_us_stocks()
    closes = prices.closes[:, [prices.symbols.index(symbol) for symbol in SYMBOLS]]
    return np.asarray(closes[1:] / closes[:-1] - 1.0)


RETURNS = stocks()[-756:]
BASIS = Basis(RETURNS, symbols=SYMBOLS, seed=11)


def test_historical_is_the_eighth_worst_of_756_days() -> None:
    figure = estimate(BASIS, BOOK, Ask("historical", 0.99))

    assert figure.var == pytest.approx(np.sort(-RETURNS @ VALUES)[-8])
    assert figure.es == pytest.approx(expected_shortfall(-RETURNS @ VALUES, 0.99))
    assert figure == VarEstimate(
        method="historical",
        model="empirical",
        confidence=0.99,
        horizon_days=1,
        horizon_method="overlapping",
        quantile="order_statistic",
        mean="sample",
        var=figure.var,
        es=figure.es,
        n_observations=756,
    )


def test_the_linear_quantile_bears_its_name() -> None:
    figure = estimate(BASIS, BOOK, Ask("historical", 0.99, quantile="linear"))

    assert figure.quantile == "linear"
    assert figure.var == pytest.approx(-np.percentile(RETURNS @ VALUES, 1.0))


def test_parametric_is_z_times_the_shrunk_deviation() -> None:
    covariance, _ = shrunk_covariance(RETURNS)
    figure = estimate(BASIS, BOOK, Ask("parametric", 0.95))

    assert figure.var == pytest.approx(1.6448536 * math.sqrt(VALUES @ covariance @ VALUES), rel=1e-7)
    assert (figure.method, figure.model, figure.quantile, figure.mean) == (
        "parametric",
        "gaussian",
        "closed_form",
        "zero",
    )
    assert figure.seed is None and figure.n_paths == 0


def test_parametric_counts_open_orders_at_their_worst() -> None:
    covariance, _ = shrunk_covariance(RETURNS)
    exact = book_tail_loss(VALUES, covariance, gaussian_tail(0.99), RETURNS.mean(axis=0), WITH_ORDERS.orders)

    figure = estimate(BASIS, WITH_ORDERS, Ask("parametric", 0.99, mean="sample"))
    assert (figure.var, figure.es) == pytest.approx((exact.var, exact.es))
    assert figure.mean == "sample"


def test_parametric_families_take_their_shape_from_the_books_pnl() -> None:
    covariance, _ = shrunk_covariance(RETURNS)
    shape = skewness_and_excess_kurtosis(RETURNS @ VALUES)
    expected = book_tail_loss(VALUES, covariance, cornish_fisher_tail(0.99, *shape))

    cornish_fisher = estimate(BASIS, BOOK, Ask("parametric", 0.99, family="cornish_fisher"))
    fitted = estimate(BASIS, BOOK, Ask("parametric", 0.99, family="student_t"))
    given_nu = estimate(BASIS, BOOK, Ask("parametric", 0.99, family="student_t", degrees_of_freedom=4.0))
    assert cornish_fisher.model == "cornish_fisher"
    assert cornish_fisher.var == pytest.approx(expected.var)
    assert (fitted.model, given_nu.degrees_of_freedom) == ("student_t", 4.0)
    assert fitted.degrees_of_freedom is not None and 2.5 < fitted.degrees_of_freedom < 10.0
    assert given_nu.var == pytest.approx(3.746947 / math.sqrt(2.0) * math.sqrt(VALUES @ covariance @ VALUES), rel=1e-6)


def test_monte_carlo_names_its_seed_and_paths_and_gives_the_same_again() -> None:
    paths = simulate(fit_path_model(RETURNS), np.random.default_rng(11), 10_000)
    figure = estimate(BASIS, BOOK, Ask("monte_carlo", 0.99))
    again = estimate(Basis(RETURNS, symbols=SYMBOLS, seed=11), BOOK, Ask("monte_carlo", 0.99))
    other = estimate(Basis(RETURNS, seed=12), BOOK, Ask("monte_carlo", 0.99))

    assert figure.var == pytest.approx(value_at_risk(-paths.matrix() @ VALUES, 0.99))
    assert (figure.model, figure.seed, figure.n_paths, figure.n_observations) == ("gaussian_copula", 11, 10_000, 756)
    assert again == figure
    assert other.var != figure.var and other.var == pytest.approx(figure.var, rel=0.15)


def test_a_t_copula_says_its_degrees_of_freedom() -> None:
    figure = estimate(Basis(RETURNS, copula="student_t"), BOOK, Ask("monte_carlo"))

    assert figure.model == "student_t_copula"
    assert figure.degrees_of_freedom is not None and 2.5 <= figure.degrees_of_freedom <= 14.0


def test_paths_too_many_to_keep_are_streamed_to_the_same_figure() -> None:
    rng = np.random.default_rng(1)
    basis = Basis(rng.standard_normal((60, 1_001)) * 0.01, lookback_days=60, seed=3)
    values = rng.normal(0.0, 1e4, 1_001)
    pnl = simulate(basis.over(1).path_model, np.random.default_rng(3)).pnl(values, values)

    assert estimate(basis, Book.of(values), Ask("monte_carlo")).var == pytest.approx(value_at_risk(-pnl, 0.99))
    assert "paths" not in basis.over(1).__dict__


def test_filtered_is_named_after_its_filter() -> None:
    pnl = RETURNS @ VALUES
    ewma = estimate(BASIS, BOOK, Ask("filtered", 0.95))
    garch = estimate(BASIS, BOOK, Ask("filtered", 0.95, filter="garch"))

    assert (ewma.model, ewma.n_observations) == ("ewma", 726)
    assert (garch.model, garch.n_observations) == ("garch", 756)
    assert ewma.var == pytest.approx(value_at_risk(ewma_filtered(pnl).losses(), 0.95))
    assert garch.var == pytest.approx(value_at_risk(garch_filtered(pnl).losses(), 0.95))


def test_several_days_by_windows_and_by_the_square_root_of_time() -> None:
    windows = overlapping_returns(RETURNS, 5)
    for ask in asks(ALL_METHODS, (0.95,), (5,), ("square_root",)):
        one_day = estimate(BASIS, BOOK, replace(ask, horizon_days=1))
        assert estimate(BASIS, BOOK, ask).var == pytest.approx(math.sqrt(5.0) * one_day.var)
        assert estimate(BASIS, BOOK, ask).es == pytest.approx(math.sqrt(5.0) * one_day.es)

    overlapping = estimate(BASIS, BOOK, Ask("historical", 0.95, 5))
    assert overlapping.var == pytest.approx(value_at_risk(-windows @ VALUES, 0.95))
    assert (overlapping.horizon_method, overlapping.n_observations) == ("overlapping", 752)
    covariance, _ = shrunk_covariance(windows)
    parametric = estimate(BASIS, BOOK, Ask("parametric", 0.95, 5))
    assert parametric.var == pytest.approx(1.6448536 * math.sqrt(VALUES @ covariance @ VALUES), rel=1e-7)
    filtered = estimate(BASIS, BOOK, Ask("filtered", 0.95, 5))
    assert filtered.var == pytest.approx(value_at_risk(ewma_filtered(RETURNS @ VALUES).losses(5), 0.95))


def test_many_figures_together_are_each_alone() -> None:
    made = asks(ALL_METHODS, (0.95, 0.99), (1, 5))

    assert estimates(BASIS, WITH_ORDERS, made) == tuple(estimate(BASIS, WITH_ORDERS, ask) for ask in made)


def test_one_day_is_asked_for_once_whichever_way_the_horizon_is_reached() -> None:
    made = asks(("historical",), (0.95, 0.99), (1, 5))

    assert [(ask.confidence, ask.horizon_days, ask.horizon_method) for ask in made] == [
        (0.95, 1, "overlapping"),
        (0.99, 1, "overlapping"),
        (0.95, 5, "overlapping"),
        (0.99, 5, "overlapping"),
        (0.95, 5, "square_root"),
        (0.99, 5, "square_root"),
    ]


def test_the_mean_is_zero_up_to_five_days_and_the_samples_beyond_or_on_request() -> None:
    drift = RETURNS.mean(axis=0) @ VALUES

    def var(ask: Ask) -> float:
        return estimate(BASIS, BOOK, ask).var

    assert Ask("parametric", horizon_days=5).assumed_mean == "zero"
    assert Ask("parametric", horizon_days=6).assumed_mean == "sample"
    assert Ask("historical").assumed_mean == Ask("filtered").assumed_mean == "sample"
    parametric, monte_carlo = Ask("parametric"), Ask("monte_carlo")
    assert var(replace(parametric, mean="sample")) == pytest.approx(var(parametric) - drift)
    assert var(replace(monte_carlo, mean="sample")) == pytest.approx(var(monte_carlo) - drift)
    assert var(Ask("historical", mean="zero")) == pytest.approx(var(Ask("historical")) + drift)


@pytest.mark.parametrize("method", ["historical", "filtered"])
def test_fewer_days_than_asked_are_answered_by_the_parametric_method_under_its_own_name(method: Method) -> None:
    short = Basis(RETURNS[-300:])
    figure = estimate(short, BOOK, Ask(method))

    assert (figure.method, figure.model, figure.n_observations, figure.mean) == ("parametric", "gaussian", 300, "zero")
    assert figure.warnings == (f"{method}: 300 days of 756 asked for: parametric (gaussian) instead",)
    assert figure.var == estimate(short, BOOK, Ask("parametric")).var


@pytest.mark.parametrize("method", ["parametric", "monte_carlo"])
def test_methods_that_fit_a_model_answer_from_fewer_days_and_say_so(method: Method) -> None:
    figure = estimate(Basis(RETURNS[-300:]), BOOK, Ask(method))

    assert (figure.method, figure.n_observations) == (method, 300)
    assert figure.warnings[0] == f"{method}: 300 days of 756 asked for"


def test_a_confidence_that_the_history_cannot_hold_is_answered_by_the_parametric_method() -> None:
    figure = estimate(BASIS, BOOK, Ask("historical", 0.999))

    assert figure.method == "parametric"
    assert "756 observations hold none beyond 0.999" in figure.warnings[0]


def test_a_filter_without_its_days_is_answered_by_the_parametric_method() -> None:
    basis = Basis(RETURNS[-200:], lookback_days=200)

    assert "200 days of 250 that garch needs" in estimate(basis, BOOK, Ask("filtered", filter="garch")).warnings[0]
    assert estimate(basis, BOOK, Ask("filtered", 0.95)).method == "filtered"


def test_more_history_than_the_lookback_changes_nothing() -> None:
    history = stocks()
    history[:100] = np.nan
    longer = Basis(history, symbols=SYMBOLS, seed=11)

    assert estimates(longer, WITH_ORDERS, asks(ALL_METHODS)) == estimates(BASIS, WITH_ORDERS, asks(ALL_METHODS))


def test_a_tail_thinner_than_one_window_warns() -> None:
    (warning,) = estimate(BASIS, BOOK, Ask("historical", 0.99, 10)).warnings

    assert "76 windows of 10 days" in warning


def test_nothing_held_loses_nothing_and_says_so() -> None:
    for figure in estimates(BASIS, Book.of(np.zeros(4)), asks(ALL_METHODS)):
        assert (figure.var, figure.es) == (0.0, 0.0)
        assert figure.warnings == ("nothing held or open: nothing to lose",)


def test_what_never_moved_is_named() -> None:
    basis = Basis(np.insert(RETURNS, 4, 0.0, axis=1), symbols=(*SYMBOLS, "USD"))
    with_cash = Book.of(np.append(VALUES, 1e6))

    for figure, alone in zip(estimates(basis, with_cash, asks()), estimates(Basis(RETURNS), BOOK, asks()), strict=True):
        assert figure.var == pytest.approx(alone.var)
        assert figure.warnings == ("never moved in 756 days, counted as riskless: USD",)


def test_a_gap_in_what_is_not_held_is_no_matter_and_in_what_is_it_is_refused() -> None:
    gappy = RETURNS.copy()
    gappy[5, 1] = np.nan
    basis = Basis(gappy, symbols=SYMBOLS)
    without = VALUES * np.array([1.0, 0.0, 1.0, 1.0])

    alone = Basis(np.delete(RETURNS, 1, axis=1))
    expected = [figure.var for figure in estimates(alone, Book.of(np.delete(without, 1)), asks(ALL_METHODS))]
    assert [figure.var for figure in estimates(basis, Book.of(without), asks(ALL_METHODS))] == pytest.approx(expected)
    with pytest.raises(ValueError, match="NaN or infinity in JPM"):
        estimate(basis, BOOK)


def option_basis(**changed: object) -> Basis:
    """Three stocks and a column whose P&L is the square of the first's return."""
    returns = np.column_stack((RETURNS[:, :3], RETURNS[:, 0] ** 2))
    whole: dict[str, object] = {
        "options": np.array([False, False, False, True]),
        "revalue": lambda paths, days: paths[:, :1] ** 2,
        "aged": {5: overlapping_returns(RETURNS[:, :1], 5) ** 2},
    }
    return Basis(returns, **(whole | changed))  # type: ignore[arg-type]


def test_options_are_revalued_on_each_days_windows_and_paths() -> None:
    short_gamma = Book.of(np.array([0.0, 0.0, 0.0, -1e6]))
    basis = option_basis()
    worst_day = np.sort(1e6 * RETURNS[:, 0] ** 2)[-8]
    worst_window = np.sort(1e6 * overlapping_returns(RETURNS, 5)[:, 0] ** 2)[-8]
    paths = simulate(fit_path_model(RETURNS[:, :3]), np.random.default_rng(0)).matrix()

    assert estimate(basis, short_gamma, Ask("historical")).var == pytest.approx(worst_day)
    assert estimate(basis, short_gamma, Ask("historical", horizon_days=5)).var == pytest.approx(worst_window)
    assert estimate(basis, short_gamma, Ask("monte_carlo")).var == pytest.approx(
        value_at_risk(1e6 * paths[:, 0] ** 2, 0.99)
    )
    parametric = estimate(basis, short_gamma, Ask("parametric"))
    assert parametric.var == pytest.approx(2.3263479 * (1e6 * RETURNS[:, 0] ** 2).std(ddof=1), rel=1e-6)
    assert "options by the deviation" in parametric.warnings[0]


def test_options_without_their_revaluation_are_refused_where_it_is_needed() -> None:
    short_gamma = Book.of(np.array([0.0, 0.0, 0.0, -1e6]))

    with pytest.raises(ValueError, match="aged: expected the options' P&L over 3 days"):
        estimate(option_basis(), short_gamma, Ask("historical", horizon_days=3))
    with pytest.raises(ValueError, match="revalue: expected a revaluation"):
        estimate(option_basis(revalue=None), short_gamma, Ask("monte_carlo"))
    with pytest.raises(ValueError, match=r"aged: expected \(752, 1\)"):
        estimate(option_basis(aged={5: np.zeros((756, 1))}), short_gamma, Ask("historical", horizon_days=5))


BOOKS = arrays(np.float64, 4, elements=st.integers(-100, 100).map(lambda n: n * 1e4)).filter(np.any)


@pytest.mark.parametrize("method", ["historical", "parametric", "monte_carlo"])
@given(one=BOOKS, other=BOOKS)
@settings(max_examples=25)
def test_es_of_two_books_together_is_no_more_than_of_both_apart(method: Method, one: Floats, other: Floats) -> None:
    ask = Ask(method, 0.95, mean="zero")
    together, alone, beside = (estimate(BASIS, Book.of(values), ask).es for values in (one + other, one, other))

    assert together <= alone + beside + 1e-6


@pytest.mark.parametrize("method", ALL_METHODS)
@given(values=BOOKS, size=st.sampled_from([0.25, 2.0, 64.0]))
@settings(max_examples=10)
def test_a_book_of_another_size_has_risk_in_proportion(method: Method, values: Floats, size: float) -> None:
    whole = estimate(BASIS, Book.of(size * values), Ask(method, 0.95))
    part = estimate(BASIS, Book.of(values), Ask(method, 0.95))

    assert (whole.var, whole.es) == pytest.approx((size * part.var, size * part.es), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("method", ["historical", "parametric", "monte_carlo"])
@given(values=BOOKS, filled=st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8))
@settings(max_examples=15)
def test_no_fill_of_open_orders_takes_es_beyond_the_worst_case(
    method: Method, values: Floats, filled: list[float]
) -> None:
    worst = Book(values, values - 5e4, values + 1e5)
    bought, sold = np.array(filled[:4]), np.array(filled[4:])
    after = Book.of(values + bought * 1e5 - sold * 5e4)

    assert estimate(BASIS, after, Ask(method)).es <= estimate(BASIS, worst, Ask(method)).es + 1e-6


@pytest.mark.parametrize("method", ALL_METHODS)
def test_es_is_no_less_than_var_and_99_percent_no_less_than_95(method: Method) -> None:
    at_95, at_99 = estimates(BASIS, WITH_ORDERS, asks((method,)))

    assert at_95.var <= at_99.var <= at_99.es
    assert at_95.var <= at_95.es <= at_99.es


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (Ask(confidence=1.0), "confidence"),
        (Ask(horizon_days=21), "horizon_days"),
        (Ask("bootstrap"), "method"),  # type: ignore[arg-type]
        (Ask("parametric", family="student_t", degrees_of_freedom=2.0), "degrees_of_freedom"),
        (Ask("parametric", family="laplace"), "family"),  # type: ignore[arg-type]
        (Ask(quantile="nearest"), "quantile"),  # type: ignore[arg-type]
    ],
)
def test_it_refuses_what_no_method_answers(ask: Ask, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        estimate(BASIS, BOOK, ask)


def test_it_refuses_a_book_of_other_columns_and_histories_too_short_for_anything() -> None:
    with pytest.raises(ValueError, match="expected 4 columns, got 3"):
        estimate(BASIS, Book.of(VALUES[:3]))
    with pytest.raises(ValueError, match="at least 30 days, got 29"):
        estimate(Basis(RETURNS[:29]), BOOK)
    with pytest.raises(ValueError, match="between its low and its high end"):
        Book(VALUES, VALUES + 1.0, VALUES + 2.0)
    with pytest.raises(ValueError, match="even number"):
        Basis(RETURNS, n_paths=9_999)
