"""What people read: the JSON document, the report, the model card. Reads the journal only."""
