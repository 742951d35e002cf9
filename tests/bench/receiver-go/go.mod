module upstream.local/receiver

go 1.26.0
