"""Rollouts: a version is ramped, judged by what it did, and stopped where it does harm."""
