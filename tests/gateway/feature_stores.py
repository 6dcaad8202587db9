"""Makes the feature store of a server for tests, with patience for slow machines."""

import random
from typing import Any

from models.breaker import Breaker
from serving.core.clock import SystemClock
from serving.features.views import FeatureViews
from serving.gateway.features import OnlineFeatures
from serving.store.features import FeatureStore
from serving.store.guard import Guard

PATIENT_S = 10.0


def online_features(views: FeatureViews, store: FeatureStore, **more: Any) -> OnlineFeatures:
    """Returns the features of these views in a store. more: see OnlineFeatures."""
    reads, writes = (Guard(Breaker(random.Random(1).random), SystemClock(), PATIENT_S) for _ in range(2))
    return OnlineFeatures(views, store, reads=reads, writes=writes, limit_s=PATIENT_S, **more)
