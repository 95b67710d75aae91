"""The sections of the page, a file a subject: what is known of a run -> blocks to show."""
