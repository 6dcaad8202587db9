"""Two tenants and two priorities on one model: interactive queries and a crawler."""

from loadtest.scenario import Inputs, Scenario, task


class Tenants(Scenario):
    question = "Does a crawler with three quarters of the traffic delay the shop's customers?"
    model = "text-embedder"
    tenants = {"shop": 1, "crawler": 3}
    think = "uniform(0.5, 2)"
    rate = 60

    @task(3, deadline_ms=200, priority=1)
    def query(self) -> Inputs:
        return {"text": [self.sentence("uniform(2, 8)")]}

    @task
    def document(self) -> Inputs:
        return {"text": [self.sentence("lognormal(120, 0.3)")]}
