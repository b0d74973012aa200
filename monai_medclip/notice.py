"""What every result says about itself."""

__all__ = ["RESEARCH_USE"]

RESEARCH_USE = "Research use only, not a medical device"
