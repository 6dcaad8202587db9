"""Autoscaling: decides the number of replicas of a model. Pure: takes readings and the time, returns a target."""
