"""Two tenants and two urgencies on one model: a person who waits, and a crawler that does not mind."""

from loadtest.scenario import Inputs, Scenario, task


class Tenants(Scenario):
    question = "Does a crawler with three quarters of the traffic make the shop's customers wait?"
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
