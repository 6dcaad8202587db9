"""Tests what is read from the details of Ray Serve's controller."""

from ray.serve.schema import ApplicationDetails, DeploymentDetails, ReplicaDetails

from serving.cluster.front.details import Application, Deployment, Replica, applications


def test_states_limits_and_causes_are_read_from_the_controllers_answer() -> None:
    found = applications(
        {
            "applications": {
                "m": {
                    "status": "DEPLOYING",
                    "message": "wait",
                    "deployments": {
                        "ModelReplica": {
                            "message": "one is missing",
                            "target_num_replicas": 2,
                            "deployment_config": {"autoscaling_config": {"max_replicas": 4}},
                            "replicas": [{"replica_id": "a", "state": "RUNNING"}],
                        }
                    },
                }
            }
        }
    )
    deployment = Deployment("one is missing", 2, 4, (Replica("a", "RUNNING"),))
    assert found == {"m": Application("DEPLOYING", "wait", {"ModelReplica": deployment})}


def test_fields_that_were_never_set_are_empty() -> None:
    found = applications({"applications": {"m": {"status": "NOT_STARTED", "deployments": {"ModelReplica": {}}}}})
    assert found["m"].deployments["ModelReplica"] == Deployment("", 0, None, ())


def test_ray_still_has_the_fields_that_are_read() -> None:
    assert {"status", "message", "deployments"} <= ApplicationDetails.model_fields.keys()
    assert {"message", "target_num_replicas", "deployment_config", "replicas"} <= DeploymentDetails.model_fields.keys()
    assert {"replica_id", "state"} <= ReplicaDetails.model_fields.keys()
