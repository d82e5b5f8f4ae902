"""Pages of HTML that stand for themselves: what the report of a pretraining and the preview of a folder share."""
