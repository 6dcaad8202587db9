"""The prediction cache: answers that a model has given already, in this process and in a store that replicas share."""
