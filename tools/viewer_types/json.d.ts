/** What was kept of a run, or what the server answers, before anybody has looked what it is. Any JSON. */
type Json = any;
