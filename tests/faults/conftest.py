"""Hypothesis in two sizes: `ci`, a few examples and always the same; `stress`, thousands and each time others.

`pytest tests/faults --hypothesis-profile stress` chooses the second.
"""

from hypothesis import HealthCheck, Phase, settings

_COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", max_examples=25, derandomize=True, phases=[Phase.explicit, Phase.generate], **_COMMON)
settings.register_profile("stress", max_examples=2000, **_COMMON)
settings.load_profile("ci")
