"""The instruments of the demo: the 20 US stocks of the sample prices, with their GICS sectors.

A table, no logic. Prices: prices.sample_us_stocks.
"""

from engine.instrument import AssetClass, Instrument

SECTORS: dict[str, str] = {
    "AAPL": "Information Technology",
    "AMD": "Information Technology",
    "BAC": "Financials",
    "BBY": "Consumer Discretionary",
    "CVX": "Energy",
    "GE": "Industrials",
    "HD": "Consumer Discretionary",
    "JNJ": "Health Care",
    "JPM": "Financials",
    "KO": "Consumer Staples",
    "LLY": "Health Care",
    "MRK": "Health Care",
    "MSFT": "Information Technology",
    "PEP": "Consumer Staples",
    "PFE": "Health Care",
    "PG": "Consumer Staples",
    "RRC": "Energy",
    "UNH": "Health Care",
    "WMT": "Consumer Staples",
    "XOM": "Energy",
}


def sample_instruments() -> dict[str, Instrument]:
    """The 20 stocks by symbol: USD, lots of one share, ticks of one cent, each its own issuer."""
    return {
        symbol: Instrument(
            symbol=symbol,
            asset_class=AssetClass.EQUITY,
            currency="USD",
            lot_size=1.0,
            tick_size=0.01,
            sector=sector,
            issuer=symbol,
        )
        for symbol, sector in SECTORS.items()
    }
