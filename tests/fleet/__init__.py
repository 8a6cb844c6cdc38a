"""Tests of fleets: several boards behind HAProxy."""
